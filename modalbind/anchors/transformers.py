"""Frozen models of Hugging Face transformers as anchor spaces.

CLIP-like models hold text and pictures, CLAP-like models text and sound, plain encoders text
alone, pooled in a named way. Code that comes with a model is never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

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
from modalbind.anchors.options import TransformersOptions
from modalbind.anchors.spec import WORLD, world_folder
from modalbind.errors import AnchorError, BrokenSampleError
from modalbind.types import AnchorItem

# SigLIP was trained on texts padded to full length, padding attended to.
_PADS_TO_FULL_LENGTH = frozenset({"siglip", "siglip2"})
# RoBERTa's family counts positions from after the padding token's number.
_OFFSET_POSITIONS = frozenset("roberta xlm-roberta camembert mpnet clap_text_model".split())
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
    "SiLU": torch.nn.SiLU,
}
_UNBOUNDED_LENGTH = 1_000_000  # transformers says 1e30 for a tokenizer without a limit
_IMAGE_SETTINGS = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize "
    "image_mean image_std do_convert_rgb do_pad".split()
)
_SOUND_SETTINGS = frozenset(
    "feature_size sampling_rate hop_length max_length_s fft_window_size top_db frequency_min "
    "frequency_max padding padding_value truncation".split()
)


class _Files(NamedTuple):
    """Where a model comes from."""

    source: str
    revision: str | None

    def arguments(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": False}


def build(source: str, tag: str | None, options: TransformersOptions) -> TransformersSpace:
    """Open a model of transformers.

    Args:
        source: Name on the hub, a folder as `save_pretrained` writes it, or `world`: the small
            multilingual sentence encoder that ships with modalbind.
        tag: Revision on the hub; None for the newest, or for a folder.
        options: See `TransformersOptions`.

    Raises:
        AnchorError: If it cannot be found or read, weights are missing, or a plain encoder has
            neither a pooling of its own nor one in the options.
    """
    spec = f"transformers:{source}" + (f"@{tag}" if tag else "")
    path = world_folder("transformers") if source == WORLD else Path(source).expanduser()
    if not path.is_dir() and (path.is_absolute() or source.startswith(".")):
        raise AnchorError(f"asked to open anchor {spec}; {path} is no folder; check the path")
    files = _Files(str(path.absolute()) if path.is_dir() else source, tag)
    advice = "check the name, the files and the network, or name a folder that has it"
    with opening(spec, advice), _quiet():
        model, processors = _load(files)
    if hasattr(model, "get_text_features"):
        if options.pooling is not None:
            raise AnchorError(
                f"asked {spec} for pooling {options.pooling!r}; it has its own; remove the option"
            )
        return TransformersSpace(spec, model, processors, options, pooling=None)
    published = _read_sentence_files(spec, files)
    pooling = options.pooling or published.pooling
    if pooling is None:
        raise AnchorError(
            f"asked to open {spec}; it is a plain encoder and says no pooling; "
            "set anchor.options.pooling to mean, cls, last or pooler, as its authors did"
        )
    _fit_pooler(spec, model, pooling)
    options = options.model_copy(update={"max_length": options.max_length or published.max_length})
    if published.dense:
        model.dense_after_pooling = torch.nn.Sequential(*published.dense)
    return TransformersSpace(spec, model, processors, options, pooling=pooling)


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no bar for reading files, and no report: what is missing is asked for by ourselves.

    Bars of downloads are another library's, and stay.
    """
    from transformers.utils import logging as said

    was_on, level = said.is_progress_bar_enabled(), said.get_verbosity()
    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if was_on:
            said.enable_progress_bar()


def _load(files: _Files) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModel, AutoTokenizer

    model, report = AutoModel.from_pretrained(
        files.source, dtype=torch.float32, output_loading_info=True, **files.arguments()
    )
    # transformers fills in what the files lack at random and only logs it. A pooler may be
    # missing, since most sentence encoders do not use it; `_fit_pooler` sees to that.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
    model.has_pooler_weights = not report["missing_keys"]
    processors: dict[str, Any] = {
        "text": AutoTokenizer.from_pretrained(files.source, **files.arguments())
    }
    if hasattr(model, "get_image_features"):
        from transformers import AutoImageProcessor

        processors["image"] = AutoImageProcessor.from_pretrained(files.source, **files.arguments())
    if hasattr(model, "get_audio_features"):
        from transformers import AutoFeatureExtractor

        processors["audio"] = AutoFeatureExtractor.from_pretrained(
            files.source, **files.arguments()
        )
    return model, processors


def _fit_pooler(spec: str, model: Any, pooling: str) -> None:
    """Drop a pooler that is not used: its weights, often random, are no part of the space."""
    if pooling != "pooler":
        model.pooler = None
    elif getattr(model, "pooler", None) is None or not model.has_pooler_weights:
        raise AnchorError(
            f"asked {spec} for pooling 'pooler'; its files have no pooler; take mean, cls or last"
        )


class _Published(NamedTuple):
    """What a model's sentence-transformers files say."""

    pooling: str | None
    max_length: int | None
    dense: tuple[torch.nn.Sequential, ...] = ()
    """Layers after the pooling, each a linear map and its activation."""


def _read_sentence_files(spec: str, files: _Files) -> _Published:
    modules = _read_json(files, "modules.json")
    if modules is None:
        return _Published(None, None)
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    others = sorted(set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"})
    if others:
        raise AnchorError(
            f"asked to open {spec}; it has a {others[0]} layer after the pooling, which modalbind "
            "does not apply; compute its vectors elsewhere and name them with precomputed:FILE"
        )
    limit = (_read_json(files, "sentence_bert_config.json") or {}).get("max_seq_length")
    folder = next(
        (m["path"] for m, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), None
    )
    said = (_read_json(files, f"{folder}/config.json") or {}) if folder else {}
    dense = tuple(
        _read_dense(spec, files, module["path"])
        for module, kind in zip(modules, kinds, strict=True)
        if kind == "Dense"
    )
    modes = [
        key for key, is_on in said.items() if key.startswith("pooling_mode_") and is_on is True
    ]
    if not modes and isinstance(said.get("pooling_mode"), str):
        pooling = {"lasttoken": "last"}.get(said["pooling_mode"], said["pooling_mode"])
        return _Published(pooling, limit, dense)
    return _Published(_POOLINGS.get(modes[0]) if len(modes) == 1 else None, limit, dense)


def _read_dense(spec: str, files: _Files, folder: str) -> torch.nn.Sequential:
    """Read a layer after the pooling, such as LaBSE's: a linear map, then an activation.

    Raises:
        AnchorError: If its files are not whole, or name an activation that is not known.
    """
    said = _read_json(files, f"{folder}/config.json") or {}
    name = str(said.get("activation_function", "Identity")).rpartition(".")[2]
    weights = _read_weights(files, folder)
    if name not in _ACTIVATIONS or weights is None or "in_features" not in said:
        raise AnchorError(
            f"asked to open {spec}; its layer {folder} has activation {name!r} and "
            f"{'its' if weights else 'no'} weights; modalbind knows {', '.join(_ACTIVATIONS)}; "
            "compute its vectors elsewhere and name them with precomputed:FILE"
        )
    layer = torch.nn.Linear(said["in_features"], said["out_features"], bias=said.get("bias", True))
    layer.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    return torch.nn.Sequential(layer, _ACTIVATIONS[name]())


def _read_weights(files: _Files, folder: str) -> dict[str, Tensor] | None:
    path = _find_file(files, f"{folder}/model.safetensors")
    if path is not None:
        found: dict[str, Tensor] = load_file(path)
        return found
    path = _find_file(files, f"{folder}/pytorch_model.bin")
    if path is None:
        return None
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _read_json(files: _Files, name: str) -> Any:
    path = _find_file(files, name)
    return None if path is None else json.loads(path.read_text(encoding="utf-8"))


def _find_file(files: _Files, name: str) -> Path | None:
    from transformers.utils import cached_file

    path = cached_file(
        files.source,
        name,
        revision=files.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


class TransformersSpace:
    """A model of transformers: text, and pictures or sound if it is a joint model.

    Contents are `str`, `PIL.Image.Image`, and for sound `(waveform, sample_rate_hz)` with a mono
    float32 waveform in -1..1; of a sound longer than the model takes, the first part counts.

    Args:
        name: What to call it.
        model: With its weights.
        processors: Its tokenizer (`text`) and its own preprocessing, by modality.
        options: See `TransformersOptions`.
        pooling: Of a plain encoder; None for joint models.
    """

    is_table = False

    def __init__(
        self,
        name: str,
        model: Any,
        processors: Mapping[str, Any],
        options: TransformersOptions,
        pooling: str | None,
    ) -> None:
        self.name = name
        self.modalities = tuple(processors)
        self._model: Any = freeze(model, options.device)
        self._processors = processors
        self._prefix = options.prefix
        self._pooling = pooling
        self._max_length = options.max_length or _token_limit(model.config, processors["text"])
        is_siglip = model.config.model_type in _PADS_TO_FULL_LENGTH
        self._padding = "max_length" if is_siglip else "longest"
        self.dim = int(self._encode_texts(["."]).shape[-1])

    def compute_fingerprint(self) -> str:
        """Hash weights, tokenizer, preprocessing, dim and normalisation as they are now."""
        settings = {"image": _IMAGE_SETTINGS, "audio": _SOUND_SETTINGS}
        return hash_fields(
            {
                "kind": "transformers",
                "weights": hash_weights(self._model.state_dict()),
                "architecture": describe_config(self._model.config.to_dict()),
                "tokenizer": describe_tokenizer(self._processors["text"]),
                "text": [self._prefix, self._pooling, self._max_length, self._padding],
                "preprocessing": {
                    modality: _describe_processor(self._processors[modality], settings[modality])
                    for modality in self.modalities
                    if modality in settings
                },
                "dim": self.dim,
                "normalised": True,
            }
        )

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the space does not hold the modality.
            BrokenSampleError: If a picture or a sound cannot be read.
        """
        check_modality(self.name, modality, self.modalities)
        if not items:
            return torch.empty(0, self.dim)
        encoders: dict[str, Callable[[list[Any]], Tensor]] = {
            "text": self._encode_texts,
            "image": self._encode_images,
            "audio": self._encode_sounds,
        }
        return unit_norm(encoders[modality](load_contents(items)))

    @exact()
    def _encode_texts(self, texts: list[str]) -> Tensor:
        tokens = self._processors["text"](
            [self._prefix + text for text in texts],
            padding=self._padding,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        ).to(self._model.device)
        if self._pooling is None:
            return _pooled(self._model.get_text_features(**tokens))
        output = self._model(**tokens)
        if self._pooling == "pooler":
            pooled = _pooled(output)
        else:
            pooled = pool(output.last_hidden_state, tokens["attention_mask"], self._pooling)
        dense = getattr(self._model, "dense_after_pooling", None)
        return pooled if dense is None else cast(Tensor, dense(pooled))

    @exact()
    def _encode_images(self, pictures: list[Any]) -> Tensor:
        pixels = self._processors["image"](images=pictures, return_tensors="pt")
        return _pooled(self._model.get_image_features(**pixels.to(self._model.device)))

    @exact()
    def _encode_sounds(self, sounds: list[tuple[Any, int]]) -> Tensor:
        extractor = self._processors["audio"]
        rate_hz = extractor.sampling_rate
        # Cut here: the extractor would draw the cut, and for fusion models a clip, at random.
        most = int(getattr(extractor, "nb_max_samples", extractor.max_length_s * rate_hz))
        waves = [_at_rate(wave, found_hz, rate_hz)[:most] for wave, found_hz in sounds]
        features = extractor(waves, sampling_rate=rate_hz, return_tensors="pt")
        is_longer = torch.zeros(len(waves), 1, dtype=torch.bool)
        features = {**features, "is_longer": is_longer}
        moved = {name: value.to(self._model.device) for name, value in features.items()}
        return _pooled(self._model.get_audio_features(**moved))


def pool(hidden: Tensor, valid_mask: Tensor, pooling: str) -> Tensor:
    """Make one vector of a text's hidden states.

    Args:
        hidden: `(n, tokens, width)`.
        valid_mask: `(n, tokens)`, 1 = real token, 0 = padding, on either side.
        pooling: `mean` over real tokens, `cls` the first of them, `last` the last of them.

    Returns:
        `(n, width)`, blind to padding.
    """
    valid = valid_mask.bool()
    if pooling == "mean":
        weights = valid.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    # argmax gives the first of equal values: the first real token, from the front or the back
    first = valid.int().argmax(dim=1)
    last = valid.shape[1] - 1 - valid.flip(1).int().argmax(dim=1)
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, first if pooling == "cls" else last]


def _pooled(output: Any) -> Tensor:
    # transformers 5 returns a record where 4 returned the tensor.
    vectors: Tensor = getattr(output, "pooler_output", output)
    return vectors


def _token_limit(config: Any, tokenizer: Any) -> int:
    config = getattr(config, "text_config", config)
    limit = int(getattr(config, "max_position_embeddings", _UNBOUNDED_LENGTH))
    if config.model_type in _OFFSET_POSITIONS:
        limit -= int(config.pad_token_id) + 1
    if tokenizer.model_max_length < _UNBOUNDED_LENGTH:
        limit = min(limit, int(tokenizer.model_max_length))
    return limit


def _at_rate(wave: Any, found_hz: int, wanted_hz: int) -> np.ndarray[Any, Any]:
    waveform = np.asarray(wave, dtype=np.float32)
    if waveform.ndim != 1 or not len(waveform):
        raise BrokenSampleError("empty", f"a sound of shape {waveform.shape}, not (samples,)")
    if found_hz == wanted_hz:
        return waveform
    try:
        from torchaudio.functional import resample
    except ImportError as error:
        raise AnchorError(
            f"asked to embed a sound of {found_hz} Hz at {wanted_hz} Hz; torchaudio is not "
            "installed; run: pip install torchaudio"
        ) from error
    resampled: np.ndarray[Any, Any] = resample(
        torch.from_numpy(waveform), found_hz, wanted_hz
    ).numpy()
    return resampled


def _describe_processor(processor: Any, settings: frozenset[str]) -> dict[str, Any]:
    said = processor.to_dict()
    return {key: _plain(said[key]) for key in sorted(settings & said.keys())}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
