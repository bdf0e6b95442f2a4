"""What encoders share: where published weights lie, and what of a network is how deep."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from modalbind.errors import InputError

_HUB = "hf://"
_LISTS = frozenset({"blocks", "layer", "layers", "resblocks", "stages"})


def find_weights(source: str) -> Path:
    """Return the local path of a file named by path or by `hf://OWNER/REPO/FILE`.

    A hub file is fetched once, into the hub's own cache.

    Raises:
        InputError: If it cannot be had.
    """
    if not source.startswith(_HUB):
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(
                f"weights {source}; no such file; give a file or {_HUB}OWNER/REPO/FILE"
            )
        return path
    owner, _, rest = source.removeprefix(_HUB).partition("/")
    repo, _, name = rest.partition("/")
    if not (owner and repo and name):
        raise InputError(f"weights {source}; not a hub file; write {_HUB}OWNER/REPO/FILE")
    return _fetch(f"{owner}/{repo}", name)


def _fetch(repo: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repo, name))
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"weights {_HUB}{repo}/{name}; {line}; check the name and the hub"
        ) from error


def split_by_depth(model: nn.Module) -> list[list[nn.Module]]:
    """Split a transformer into what stands before its layers, and each layer.

    What comes after the layers (a last norm, a pooler) joins the last of them. Parameters that
    hang on the model itself are in no module of their own, and so in no group.

    Args:
        model: A network with a list of layers: `layer`, `layers`, `blocks`, `resblocks` or
            `stages`, as transformers, timm and OpenCLIP name theirs.

    Raises:
        InputError: If it has none.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and name.rpartition(".")[2] in _LISTS
    ]
    if not lists:
        raise InputError(
            f"layers of {type(model).__name__} asked for; it has no list of them; "
            f"name it one of {', '.join(sorted(_LISTS))}"
        )
    # The outermost list: layers may have lists inside.
    prefix, layers = min(lists, key=lambda item: item[0].count("."))
    before: list[nn.Module] = []
    after: list[nn.Module] = []
    taken: list[str] = [prefix]
    target = before
    for name, module in model.named_modules():
        if name == prefix:
            target = after
        is_inside = any(name == other or name.startswith(f"{other}.") for other in taken)
        if name and not is_inside and next(module.parameters(recurse=False), None) is not None:
            target.append(module)
            taken.append(name)
    groups = [before, *([layer] for layer in layers)]
    groups[-1].extend(after)
    return groups
