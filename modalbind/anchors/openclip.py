"""Frozen OpenCLIP models as anchor spaces of text and pictures.

A model is used with its own tokenizer and its own eval transform, and never with random weights.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from modalbind.anchors.fingerprint import (
    describe_config,
    describe_tokenizer,
    hash_fields,
    hash_weights,
)
from modalbind.anchors.frozen import (
    check_modality,
    exact,
    freeze,
    load_contents,
    opening,
    unit_norm,
)
from modalbind.anchors.options import OpenClipOptions
from modalbind.anchors.spec import LOCAL_DIR, WORLD, world_folder
from modalbind.errors import AnchorError
from modalbind.types import AnchorItem

HUB = "hf-hub:"
_CONFIG = "open_clip_config.json"
# Where files lie and what was loaded before ours: no part of the model's maths.
_NOT_MATHS = frozenset({"hf_model_name", "hf_tokenizer_name", "hf_model_pretrained"})


def build(source: str, tag: str | None, options: OpenClipOptions) -> OpenClipSpace:
    """Open an OpenCLIP model.

    Args:
        source: Model name, `hf-hub:ORG/NAME`, `local-dir:PATH`, or `world` for the small anchor
            that ships with modalbind.
        tag: Pretrained tag, or file of weights, of a model name; None for the others.
        options: See `OpenClipOptions`.

    Raises:
        AnchorError: If the name or tag is unknown, a file is missing, or there is no network.
    """
    spec = f"openclip:{source}" + (f"@{tag}" if tag else "")
    if source == WORLD:
        source = f"{LOCAL_DIR}{world_folder('openclip')}"
    if source.startswith(LOCAL_DIR):
        source = f"{LOCAL_DIR}{_check_folder(spec, source.removeprefix(LOCAL_DIR))}"
    elif not source.startswith(HUB):
        _check_names(spec, source, tag)
    advice = "check the name, the files and the network, or use a local-dir: that holds the model"
    with opening(spec, advice):
        model, _, transform = open_clip.create_model_and_transforms(
            source,
            pretrained=tag,
            require_pretrained=True,
            weights_only=True,
            **_model_arguments(source, tag),
        )
        tokenizer = open_clip.get_tokenizer(source)
        frozen = freeze(model, options.device)
        return OpenClipSpace(spec, frozen, tokenizer, transform, _read_config(source))


def _check_folder(spec: str, path: str) -> Path:
    folder = Path(path).expanduser().absolute()
    if not (folder / _CONFIG).is_file():
        raise AnchorError(
            f"asked to open anchor {spec}; {folder} has no {_CONFIG}; "
            "name a folder as open_clip saves it"
        )
    return folder


def _check_names(spec: str, source: str, tag: str | None) -> None:
    known = open_clip.list_models()
    if source.replace("/", "-") not in known:
        near = difflib.get_close_matches(source, known, n=3, cutoff=0.3)
        raise AnchorError(
            f"asked to open anchor {spec}; OpenCLIP has no model {source!r}; "
            f"nearest: {', '.join(near) or 'none'}"
        )
    tags = open_clip.list_pretrained_tags_by_model(source.replace("/", "-"))
    if tag is None or not (open_clip.is_pretrained_cfg(source, tag) or Path(tag).is_file()):
        found = "it names no weights" if tag is None else f"{tag!r} is no tag or file of it"
        raise AnchorError(
            f"asked to open anchor {spec}; {found}; write openclip:{source}@TAG with one of: "
            f"{', '.join(tags) or 'a file of weights'}"
        )


def _model_arguments(source: str, tag: str | None) -> dict[str, Any]:
    if not source.startswith((LOCAL_DIR, HUB)):
        # OpenCLIP only warns when the tag's weights were trained with the other activation.
        pretrained = open_clip.get_pretrained_cfg(source.replace("/", "-"), tag) or {}
        return {"force_quick_gelu": True} if pretrained.get("quick_gelu") else {}
    if source.startswith(HUB):
        return {}
    folder = Path(source.removeprefix(LOCAL_DIR))
    text = _read_config(source).get("text_cfg", {})
    here = _config_folder(folder, text.get("hf_model_name"))
    if here is None:
        return {}
    # The name is looked up from the current folder, else on the hub: say where it is. What is
    # passed here replaces what OpenCLIP has set, so its text weights are declined again.
    return {"text_cfg": {**text, "hf_model_name": str(here), "hf_model_pretrained": False}}


def _config_folder(folder: Path, name: str | None) -> Path | None:
    """Return the folder with the config of the text tower, if the model brings it along."""
    if not name:
        return None
    for candidate in (folder / name, folder):
        config = candidate / "config.json"
        # A CLIP config here is transformers' copy of the whole model, not of the text tower.
        if config.is_file() and "clip" not in str(_read_json(config).get("model_type")):
            return candidate
    return None


def _read_config(source: str) -> dict[str, Any]:
    config: dict[str, Any] = open_clip.get_model_config(source) or {}
    return config


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


class OpenClipSpace:
    """An OpenCLIP model: text and pictures in one frozen space.

    Args:
        name: What to call it.
        model: Frozen, on its device.
        tokenizer: Texts to token ids `(n, context)`.
        transform: Picture to float32 `(3, height, width)`.
        config: Its architecture, as OpenCLIP's JSON says it.
    """

    is_table = False
    modalities = ("text", "image")

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, transform: Any, config: dict[str, Any]
    ) -> None:
        self.name = name
        self._model: Any = model
        self._tokenizer = tokenizer
        self._transform = transform
        self._config = config
        self.dim = int(self._encode_texts(["."]).shape[-1])

    def compute_fingerprint(self) -> str:
        """Hash weights, tokenizer, preprocessing, dim and normalisation as they are now."""
        return hash_fields(
            {
                "kind": "openclip",
                "weights": hash_weights(self._model.state_dict()),
                "architecture": _describe_architecture(self._config, self._model),
                "tokenizer": _describe_openclip_tokenizer(self._tokenizer),
                "preprocessing": _jsonable(open_clip.get_model_preprocess_cfg(self._model)),
                "dim": self.dim,
                "normalised": True,
            }
        )

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the modality is neither text nor image.
            BrokenSampleError: If a picture cannot be read.
        """
        check_modality(self.name, modality, self.modalities)
        if not items:
            return torch.empty(0, self.dim)
        contents = load_contents(items)
        raw = self._encode_texts(contents) if modality == "text" else self._encode_images(contents)
        return unit_norm(raw)

    def copy_tower(self, modality: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return architecture and weights of the image tower, for an encoder to start from.

        Raises:
            AnchorError: If another tower is asked for.
        """
        check_modality(self.name, modality, ("image",))
        architecture = {
            "embed_dim": self.dim,
            "vision_cfg": self._config["vision_cfg"],
            "quick_gelu": bool(self._config.get("quick_gelu", False)),
        }
        return architecture, dict(self._model.visual.state_dict())

    @exact()
    def _encode_texts(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts)
        encoded: Tensor = self._model.encode_text(tokens.to(self._device))
        return encoded

    @exact()
    def _encode_images(self, pictures: list[Any]) -> Tensor:
        pixels = torch.stack([self._transform(picture) for picture in pictures])
        encoded: Tensor = self._model.encode_image(pixels.to(self._device))
        return encoded

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self._model.parameters()).device
        return device


def _describe_architecture(config: dict[str, Any], model: Any) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            value = {name: inner for name, inner in value.items() if name not in _NOT_MATHS}
        described[key] = value
    inner = getattr(getattr(getattr(model, "text", None), "transformer", None), "config", None)
    if inner is not None:
        described["text_transformer"] = describe_config(inner.to_dict())
    return described


def _describe_openclip_tokenizer(tokenizer: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "context_length": tokenizer.context_length,
        "clean": getattr(getattr(tokenizer, "clean_fn", None), "__name__", None),
        "strip_sep_token": getattr(tokenizer, "strip_sep_token", None),
        "mode": getattr(tokenizer, "tokenizer_mode", None),
    }
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        return {**described, "inner": describe_tokenizer(inner)}
    merges = [[*pair, rank] for pair, rank in getattr(tokenizer, "bpe_ranks", {}).items()]
    return {
        **described,
        "vocabulary": hash_fields(getattr(tokenizer, "encoder", {})),
        "merges": hash_fields({"merges": merges}),
    }


def _jsonable(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, (list, tuple)) else value
        for key, value in config.items()
    }
