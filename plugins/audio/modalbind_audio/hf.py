"""Audio encoders from transformers: AST, CLAP, wav2vec2, HuBERT, WavLM, Whisper.

The modality hands over waveforms, and the model's own feature extractor runs inside the encoder
on each clip cut to its real length. That costs a little time in each step, and is how the model
was trained: statistics, padding and sample rate are its own. AST alone may take the plugin's
log-mel instead (`input: fbank`), which `spec_augment` can work on.

Padding never changes a result. AST, CLAP and Whisper bring every clip to a fixed length by
themselves. Speech models are run on clips of one length at a time, because the group norm of
many of them looks over the edge of a clip whatever the mask says.

Letters: `n` clips, `t` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchaudio.functional as audio
from torch import Tensor, nn

from modalbind.api import InputError, Modality, ShapeError, split_by_depth
from modalbind_audio.fitting import check_features
from modalbind_audio.options import SAMPLE_RATE_HZ, AudioOptions, HfOptions

_LINEAR_NAMES = frozenset({"query", "key", "value", "q_proj", "k_proj", "v_proj", "out_proj"})


@dataclass(frozen=True)
class Family:
    """How one kind of model is used.

    Attributes:
        audio_part: From the loaded model to the part that hears.
        width: From that part's config to the width of what is pooled.
        pools: Poolings that make sense for it; the first is the default.
        is_fixed: Its extractor brings every clip to one length.
    """

    audio_part: Callable[[Any], nn.Module]
    width: Callable[[Any], int]
    pools: tuple[str, ...]
    is_fixed: bool


def _hidden_size(config: Any) -> int:
    return int(config.hidden_size)


_SPEECH = Family(lambda model: model, _hidden_size, ("mean",), is_fixed=False)
FAMILIES: Mapping[str, Family] = {
    "audio-spectrogram-transformer": Family(
        lambda model: model, _hidden_size, ("pooled", "mean", "cls"), is_fixed=True
    ),
    "clap": Family(lambda model: model.audio_model, _hidden_size, ("pooled", "mean"), True),
    "whisper": Family(
        lambda model: model.get_encoder(), lambda config: int(config.d_model), ("mean",), True
    ),
    **dict.fromkeys(
        ("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "data2vec-audio"), _SPEECH
    ),
}


class HfEncoder(nn.Module):
    """A transformers audio model as an encoder of waveforms, or of AST's log-mel.

    Attributes:
        width: Width of the result.
        lora_targets: Names of its attention projections.
    """

    def __init__(self, model: Any, extractor: Any, options: HfOptions, fill: float) -> None:
        """Wrap a model.

        Args:
            model: A model of one of the `FAMILIES`; only the part that hears is kept.
            extractor: Its feature extractor.
            options: Pooling and input.
            fill: What stands for "no frame" in log-mel input.
        """
        super().__init__()
        self.source_config = model.config
        self.family = family = FAMILIES[model.config.model_type]
        self.model: Any = family.audio_part(model)
        self.extractor = extractor
        self.options = options
        self.fill = fill
        self.pooling = options.pooling or family.pools[0]
        self.width = family.width(self.model.config)
        _silence_masking(self.model)
        names = {
            name.rpartition(".")[2]
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear)
        }
        self.lora_targets = tuple(sorted(names & _LINEAR_NAMES))

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode waveforms `(n, samples)`, or log-mel `(n, time, mels)`, to `(n, width)`.

        Raises:
            ShapeError: If the features have another number of axes.
        """
        axes = 3 if self.options.input == "fbank" else 2
        if features.ndim != axes:
            raise ShapeError(
                f"{type(self.model).__name__} with input {self.options.input}; features "
                f"{tuple(features.shape)}; set modality.options.features={self.options.input}"
            )
        if self.options.input == "fbank":
            return self._encode_fbank(features, valid_mask)
        lengths = (
            [features.shape[1]] * len(features)
            if valid_mask is None
            else [int(length) for length in valid_mask.sum(1)]
        )
        clips = [clip[:length] for clip, length in zip(features, lengths, strict=True)]
        if self.family.is_fixed:
            return self._encode(clips)
        return self._encode_by_length(clips, lengths)

    def _encode_by_length(self, clips: list[Tensor], lengths: list[int]) -> Tensor:
        pooled: dict[int, Tensor] = {}
        for length in sorted(set(lengths)):
            rows = [row for row, other in enumerate(lengths) if other == length]
            pooled |= zip(rows, self._encode([clips[row] for row in rows]), strict=True)
        return torch.stack([pooled[row] for row in range(len(clips))])

    def _encode(self, clips: list[Tensor]) -> Tensor:
        """Encode clips through the model's feature extractor."""
        rate_hz = self.extractor.sampling_rate
        limit = getattr(self.extractor, "nb_max_samples", None)  # CLAP draws a crop beyond it
        arrays: list[np.ndarray] = []
        for clip in clips:
            resampled = audio.resample(clip.detach().float().cpu(), SAMPLE_RATE_HZ, rate_hz)
            arrays.append(resampled[:limit].numpy())
        inputs = self.extractor(arrays, sampling_rate=rate_hz, return_tensors="pt")
        if "is_longer" in inputs:
            # The extractor marks a random clip if none is; no clip is, after the cut above.
            inputs["is_longer"] = torch.zeros(len(clips), 1, dtype=torch.bool)
        device = clips[0].device
        tensors = {
            name: value.to(device) for name, value in inputs.items() if name != "attention_mask"
        }
        output = self.model(**tensors)
        return self._pool(output, [len(array) / rate_hz for array in arrays])

    def _encode_fbank(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        """Encode log-mel, cut or filled to AST's length as its own extractor does."""
        size = self.model.config.max_length
        filled = features.new_full((len(features), size, features.shape[2]), self.fill)
        kept = features[:, :size]
        if valid_mask is not None:
            kept = kept.masked_fill(~valid_mask[:, :size].unsqueeze(-1), self.fill)
        filled[:, : kept.shape[1]] = kept
        return self._pool(self.model(input_values=filled), [])

    def _pool(self, output: Any, durations_s: list[float]) -> Tensor:
        if self.pooling == "pooled":
            pooled: Tensor = output.pooler_output
            return pooled
        hidden: Tensor = output.last_hidden_state
        if hidden.ndim == 4:  # CLAP: (n, width, rows, cols)
            return hidden.mean((2, 3))
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.source_config.model_type == "audio-spectrogram-transformer":
            return hidden[:, 2:].mean(1)  # without class and distillation token
        if self.source_config.model_type == "whisper":
            return self._mean_of_sound(hidden, durations_s)
        return hidden.mean(1)

    def _mean_of_sound(self, hidden: Tensor, durations_s: list[float]) -> Tensor:
        """Mean over the tokens in which there is sound: Whisper fills 30 s with silence."""
        window_s = self.extractor.n_samples / self.extractor.sampling_rate
        rows = []
        for tokens, duration_s in zip(hidden, durations_s, strict=True):
            share = min(1.0, duration_s / window_s)
            rows.append(tokens[: max(1, round(share * len(tokens)))].mean(0))
        return torch.stack(rows)

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass, or keep them.

        Raises:
            InputError: If transformers cannot do that for this model, e.g. CLAP.
        """
        if enabled and not self.model.supports_gradient_checkpointing:
            raise InputError(
                f"tower.checkpointing with {self.source_config.model_type}; transformers cannot "
                "recompute its activations; leave it out"
            )
        action = "enable" if enabled else "disable"
        # The second name is that of earlier transformers, and warns in later ones.
        for name in ("activation_checkpointing", "gradient_checkpointing"):
            switch = getattr(self.model, f"{name}_{action}", None)
            if switch is not None:
                switch()
                return

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth, the input first."""
        return split_by_depth(self.model)

    def portable_options(self) -> HfOptions:
        """Options that build the same architecture with nothing but themselves."""
        config = self.source_config
        changes = {
            "model": None,
            "config": _plain(config.to_dict()) | {"model_type": config.model_type},
            "extractor": _plain(self.extractor.to_dict()),
        }
        return HfOptions.model_validate(self.options.model_dump() | changes)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Keep what JSON can say and the constructor can take back."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _silence_masking(model: nn.Module) -> None:
    """Switch off the masking that speech models do in training: numpy's global randomness.

    Augmentation is the recipe's; the embedding that stood for masked frames is left out of
    training with it.
    """
    config: Any = model.config
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False
    masked = getattr(model, "masked_spec_embed", None)
    if isinstance(masked, nn.Parameter):
        masked.requires_grad_(False)


def build(options: HfOptions, modality: Modality) -> HfEncoder:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        InputError: If the modality makes other features, the model cannot be loaded, or it is
            of a kind that is not known here.
    """
    settings = check_features("hf", options.input, modality)
    config, extractor = _describe(options)
    _check_choice(options, config)
    _check_mels(options, settings, config)
    import transformers

    if options.model is None:
        model = transformers.AutoModel.from_config(config)
    else:
        model = transformers.AutoModel.from_pretrained(options.model, revision=options.revision)
    fill = -settings.fbank_mean / (2 * settings.fbank_std)
    return HfEncoder(model, extractor, options, fill)


def _describe(options: HfOptions) -> tuple[Any, Any]:
    """Return the config and the feature extractor, from the model or from the options."""
    import transformers

    if options.model is None:
        stored = dict(options.config or {})
        config = transformers.AutoConfig.for_model(stored.pop("model_type"), **stored)
        values = dict(options.extractor or {})
        kind = getattr(transformers, str(values.pop("feature_extractor_type")))
        return config, kind(**values)
    try:
        return (
            transformers.AutoConfig.from_pretrained(options.model, revision=options.revision),
            transformers.AutoFeatureExtractor.from_pretrained(
                options.model, revision=options.revision
            ),
        )
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(
            f"encoder 'hf' with model {options.model!r}; {line}; "
            "give a hub name or a folder with config, weights and preprocessor_config.json"
        ) from error


def _check_choice(options: HfOptions, config: Any) -> None:
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise InputError(
            f"encoder 'hf' with model {options.model!r}; its type is {config.model_type}; "
            f"known: {', '.join(FAMILIES)}"
        )
    if options.pooling is not None and options.pooling not in family.pools:
        raise InputError(
            f"encoder 'hf' with pooling {options.pooling}; {config.model_type} has "
            f"{', '.join(family.pools)}; choose one of these"
        )
    if options.input == "fbank" and config.model_type != "audio-spectrogram-transformer":
        raise InputError(
            f"encoder 'hf' with input fbank; {config.model_type} takes waveforms; "
            "set input=waveform and modality.options.features=waveform"
        )


def _check_mels(options: HfOptions, settings: AudioOptions, config: Any) -> None:
    if options.input == "fbank" and settings.mels != config.num_mel_bins:
        raise InputError(
            f"encoder 'hf' takes {config.num_mel_bins} mel filters; modality.options.mels is "
            f"{settings.mels}; make them equal"
        )
