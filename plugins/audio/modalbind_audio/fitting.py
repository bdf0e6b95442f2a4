"""What encoders share: do the features fit, where are the weights, what is how deep."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from modalbind.api import InputError, Modality
from modalbind_audio.options import AudioOptions

_HUB = "hf://"


def audio_options(modality: Modality) -> AudioOptions:
    """Return the options of the audio modality that an encoder is built for.

    Raises:
        InputError: If it is another modality.
    """
    options = getattr(modality, "options", None)
    if not isinstance(options, AudioOptions):
        raise InputError(
            f"an encoder for audio; the modality is {type(modality).__name__}; choose its own"
        )
    return options


def check_features(encoder: str, wanted: str, modality: Modality) -> AudioOptions:
    """Refuse an encoder whose input the modality does not make.

    Raises:
        InputError: Naming the option to set.
    """
    options = audio_options(modality)
    if options.features != wanted:
        raise InputError(
            f"encoder {encoder!r} takes {wanted}; modality.options.features is "
            f"{options.features}; set modality.options.features={wanted}"
        )
    return options


def check_mels(encoder: str, mels: int, modality: Modality) -> AudioOptions:
    """Refuse an encoder that takes log-mel of another height.

    Raises:
        InputError: Naming the option to set.
    """
    options = check_features(encoder, "fbank", modality)
    if options.mels != mels:
        raise InputError(
            f"encoder {encoder!r} takes {mels} mel filters; modality.options.mels is "
            f"{options.mels}; make them equal"
        )
    return options


def frame_width(encoder: str, table_width: int, modality: Modality) -> int:
    """Return how many values a frame has: log-mel says its own, a table's is an option.

    Raises:
        InputError: If the modality makes waveforms, which have no frames.
    """
    options = audio_options(modality)
    if options.features == "waveform":
        raise InputError(
            f"encoder {encoder!r} takes frames; modality.options.features is waveform; "
            "set modality.options.features=table or fbank"
        )
    return options.mels if options.features == "fbank" else table_width


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
        model: A network with one list of layers, `layer`, `layers` or `blocks`.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and name.rpartition(".")[2] in {"layer", "layers", "blocks"}
    ]
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
