"""Low-rank adapters on an encoder, through peft. peft is slow to import: only when asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from modalbind.errors import RecipeError
from modalbind.recipe.schema import LoraSection


def add_adapters(encoder: nn.Module, section: LoraSection, default_targets: Sequence[str]) -> None:
    """Freeze an encoder and put trainable adapters beside its linear layers, in place.

    Args:
        encoder: Any module.
        section: Rank, scale, dropout, and the names of layers if not the encoder's own.
        default_targets: The encoder's own: last parts of dotted names, such as `q_proj`.

    Raises:
        RecipeError: If a target names no linear layer.

    Source:
        Hu et al. 2021 (arXiv 2106.09685).
    """
    targets = list(section.targets or default_targets)
    _check_targets(encoder, targets)
    # peft would import transformers and its quantisation back ends: 11 s that others never pay.
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=targets,
        bias="none",
    )
    inject_adapter_in_model(config, encoder)


def merge_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Weights of the module as if it had no adapters: each update added to its matrix.

    Args:
        module: With or without adapters; not changed.

    Returns:
        State dict under the names of the module without adapters.
    """
    adapted = {
        name: layer for name, layer in module.named_modules() if hasattr(layer, "get_delta_weight")
    }
    merged: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        owner = next((layer for layer in adapted if name.startswith(f"{layer}.")), None)
        if owner is None:
            merged[name] = tensor
        elif name.startswith(f"{owner}.base_layer."):  # anything else there is the adapter
            field = name.removeprefix(f"{owner}.base_layer.")
            merged[f"{owner}.{field}"] = tensor
            if field == "weight":
                update = adapted[owner].get_delta_weight("default").detach()
                merged[f"{owner}.{field}"] = tensor + update.to(tensor.dtype)
    return merged


def _check_targets(encoder: nn.Module, targets: Sequence[str]) -> None:
    linear = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)]
    unknown = [
        target
        for target in targets
        if not any(name == target or name.endswith(f".{target}") for name in linear)
    ]
    if unknown or not targets:
        available = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
        raise RecipeError(
            f"tower.lora.targets: {unknown or 'none given'} names no linear layer of the encoder; "
            f"available: {available}; choose from these"
        )
