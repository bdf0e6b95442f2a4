"""Options of everything that the plugin offers: light pydantic models, all defaults in them.

Nothing here imports torch, so that listing plugins and checking recipes stay instant.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from modalbind.api import Options

SAMPLE_RATE_HZ = 16_000
"""Rate of every waveform inside the plugin; files of another rate are resampled."""


class AudioOptions(Options):
    """How sound files are read, and turned into features."""

    features: Literal["fbank", "waveform", "table"] = Field(
        default="fbank",
        description="What encoders get: Kaldi log-mel `(time, mels)`, the waveform `(samples,)` at "
        "16 kHz, or frames `(time, width)` that somebody computed before, from `table`.",
    )
    table: str | None = Field(
        default=None,
        description="For `features: table`: npz with `frames (total, width)`, `offsets (n + 1)` "
        "and `paths (n)`; relative to the data root.",
    )
    table_frame_ms: float = Field(
        default=80.0, gt=0, description="Time from one frame of the table to the next, in ms."
    )
    channels: Literal["mean", "left", "right"] = Field(
        default="mean", description="How several channels become one; `right` is the second."
    )
    max_duration_s: float = Field(
        default=600.0, gt=0, description="Longer files are refused as `too_long`, in seconds."
    )
    max_channels: int = Field(default=8, ge=1, description="Files with more are refused.")
    trim_below_db: float | None = Field(
        default=None,
        le=0,
        description="Leave out what lies before the first and after the last value above this "
        "peak level, in dB re full scale (-80: digital silence); a sound all below it stays whole.",
    )
    mels: int = Field(default=128, ge=8, description="Mel filters of the log-mel features.")
    frame_shift_ms: float = Field(
        default=10.0, gt=0, description="Time from one log-mel frame to the next, in ms."
    )
    fbank_window: Literal["povey", "hanning", "hamming"] = Field(
        default="povey", description="Window of the 25 ms frames; BEATs has Kaldi's `povey`."
    )
    fbank_scale: float = Field(
        default=2.0**15,
        gt=0,
        description="Factor on the waveform before log-mel; BEATs has 16-bit range.",
    )
    fbank_floor: float | None = Field(
        default=None,
        description="Log-mel (natural log, before normalising) below this is raised to it, so "
        "that digital silence, at -16, does not dwarf all sound; BEATs has none.",
    )
    fbank_mean: float = Field(
        default=15.41663, description="Subtracted from log-mel (natural log); BEATs' AudioSet mean."
    )
    fbank_std: float = Field(
        default=6.55582,
        gt=0,
        description="Log-mel is divided by twice this, as BEATs and AST do; BEATs' deviation.",
    )
    window_s: float = Field(
        default=10.0, gt=0, description="Longer samples are cut into windows of so many seconds."
    )
    hop_s: float | None = Field(
        default=None, gt=0, description="Seconds between windows; default: half of `window_s`."
    )

    @model_validator(mode="after")
    def _check(self) -> AudioOptions:
        if (self.features == "table") != (self.table is not None):
            raise ValueError("`features: table` and `table: FILE` need each other")
        if self.hop_s is not None and self.hop_s > self.window_s:
            raise ValueError("hop_s above window_s would leave out parts of the recording")
        return self


class BeatsOptions(Options):
    """BEATs, from published weights or small and from scratch.

    With `weights` the architecture is the file's own; only dropout, drops, pooling and masks may
    be set.
    """

    weights: str | None = Field(
        default=None,
        description="Published checkpoint: a local file, or `hf://OWNER/REPO/FILE` on the hub.",
    )
    layers: int = Field(default=4, ge=1, description="Transformer layers.")
    width: int = Field(default=192, ge=8, description="Width of the hidden states.")
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide `width`.")
    ffn: int = Field(default=768, ge=8, description="Width inside the feed-forward layers.")
    embed: int = Field(default=192, ge=8, description="Channels of the patch embedding.")
    mels: int = Field(default=128, ge=8, description="Mel filters that the features have.")
    patch: tuple[int, int] = Field(
        default=(16, 16), description="Patch size in frames and mel filters."
    )
    stride: tuple[int, int] | None = Field(
        default=None, description="Patch stride in frames and mel filters; default: the size."
    )
    conv_pos: int = Field(
        default=128, ge=1, description="Kernel of the positional convolution, in tokens."
    )
    conv_pos_groups: int = Field(default=16, ge=1, description="Groups of that convolution.")
    buckets: int = Field(default=320, ge=8, description="Buckets of relative positions.")
    max_distance: int = Field(
        default=800, ge=8, description="Relative distance of the last bucket, in tokens."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="On both residual branches.")
    attention_dropout: float = Field(default=0.0, ge=0, lt=1, description="On attention weights.")
    activation_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Inside the feed-forward layers."
    )
    layer_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Chance that a sample skips a layer in training (stochastic depth).",
    )
    patch_drop: float = Field(
        default=0.0, ge=0, lt=1, description="Share of tokens left out in training."
    )
    patch_drop_until: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the run after which no token is left out: a last stretch on whole "
        "clips, which is what the tower is used on.",
    )
    pooling: Literal["mean", "statistics"] = Field(
        default="mean",
        description="Over tokens: their mean, as published, or mean, deviation and maximum.",
    )
    reference_mask: bool = Field(
        default=False,
        description="Mask padding as the reference code does (inexact: results then depend on "
        "the batch). Default: whole columns of patches, so that padding changes nothing.",
    )

    @model_validator(mode="after")
    def _check(self) -> BeatsOptions:
        if self.weights is not None:
            free = {
                "weights",
                "dropout",
                "attention_dropout",
                "activation_dropout",
                "layer_drop",
                "patch_drop",
                "patch_drop_until",
                "pooling",
                "reference_mask",
            }
            clash = sorted(self.model_fields_set - free)
            if clash:
                raise ValueError(f"`weights` fixes the architecture; leave out {', '.join(clash)}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.width % self.conv_pos_groups:
            raise ValueError(f"width {self.width} is not a multiple of conv_pos_groups")
        if self.patch[1] > self.mels:
            raise ValueError(f"patch is {self.patch[1]} mels high, features have {self.mels}")
        return self


class FramesOptions(Options):
    """A small encoder over frames."""

    inputs: int = Field(
        default=96, ge=1, description="Width of a table's frames; log-mel says its own."
    )
    layer: Literal["conv", "transformer"] = Field(
        default="conv", description="What runs over time."
    )
    layers: int = Field(default=2, ge=0, description="How many of them; 0 pools the projection.")
    width: int = Field(default=256, ge=8, description="Width of the hidden states.")
    kernel: int = Field(default=5, ge=1, description="Taps of a convolution; odd, in frames.")
    dilation: int = Field(
        default=1, ge=1, description="Factor on the spacing of taps from layer to layer."
    )
    full_conv: bool = Field(
        default=True, description="Convolve across channels; false: each channel alone."
    )
    heads: int = Field(default=4, ge=1, description="Attention heads; must divide `width`.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="On each residual branch.")
    input_dropout: float = Field(default=0.0, ge=0, lt=1, description="On the frames' values.")
    pooling: Literal["mean", "mean_std", "attentive", "segments"] = Field(
        default="attentive",
        description="Mean; mean and deviation; those by learned attention; or the means of "
        "equal stretches, in order.",
    )
    pooling_heads: int = Field(default=4, ge=1, description="Attentions of `attentive`.")
    segments: int = Field(default=5, ge=1, description="Stretches of `segments`.")

    @model_validator(mode="after")
    def _check(self) -> FramesOptions:
        if self.kernel % 2 == 0:
            raise ValueError("kernel has to be odd, so that a frame stays in the middle")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class StatisticsOptions(Options):
    """Statistics of frames over time; no weights."""

    inputs: int = Field(
        default=96, ge=1, description="Width of a table's frames; log-mel says its own."
    )
    statistics: tuple[Literal["mean", "std", "max", "min"], ...] = Field(
        default=("mean", "std", "max", "min"), min_length=1, description="What is computed."
    )
    segments: int = Field(
        default=1, ge=1, description="Equal stretches of a clip, each with its own statistics."
    )


class HfOptions(Options):
    """An audio model of transformers.

    `model` names weights. A run that is to stand alone stores `config` and `extractor` instead.
    """

    model: str | None = Field(
        default=None, description="Hub name, or a folder in transformers' layout."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    input: Literal["waveform", "fbank"] = Field(
        default="waveform",
        description="What the modality has to make; log-mel is for AST only, and replaces its "
        "own feature extractor.",
    )
    pooling: Literal["mean", "cls", "pooled"] | None = Field(
        default=None,
        description="Mean of the hidden states, class token, or the model's own pooled output; "
        "default: pooled where there is one.",
    )
    config: dict[str, Any] | None = Field(
        default=None, description="The model's config.json, instead of `model`: no weights."
    )
    extractor: dict[str, Any] | None = Field(
        default=None, description="Its preprocessor_config.json, with `config`."
    )

    @model_validator(mode="after")
    def _check(self) -> HfOptions:
        if (self.model is None) == (self.config is None):
            raise ValueError("give `model`, or `config` with `extractor`")
        if (self.config is None) != (self.extractor is None):
            raise ValueError("`config` and `extractor` need each other")
        return self


class TimmOptions(Options):
    """A vision transformer of timm over log-mel, in the shape of AudioMAE."""

    model: str = Field(
        default="vit_tiny_patch16_224",
        description="timm's name; `hf-hub:gaunernst/vit_base_patch16_1024_128.audiomae_as2m` "
        "is AudioMAE.",
    )
    pretrained: bool = Field(default=False, description="Fetch the weights that timm knows for it.")
    weights: str | None = Field(
        default=None, description="Checkpoint: a local file, or `hf://OWNER/REPO/FILE` on the hub."
    )
    frames: int = Field(
        default=1024, ge=16, description="Frames that every clip is cut or filled to."
    )
    mels: int = Field(default=128, ge=8, description="Mel filters that the features have.")
    args: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Further arguments of timm.create_model: depth, embed_dim, drop_path_rate.",
    )


class RandomTruncateOptions(Options):
    """A random stretch of a sample."""

    min_s: float = Field(default=1.0, gt=0, description="Shortest stretch kept, in seconds.")
    max_s: float = Field(default=10.0, gt=0, description="Longest stretch kept, in seconds.")
    repeat: bool = Field(
        default=False, description="Play shorter samples over and over until they are long enough."
    )

    @model_validator(mode="after")
    def _check(self) -> RandomTruncateOptions:
        if self.min_s > self.max_s:
            raise ValueError("min_s is above max_s")
        return self


class TimeShiftOptions(Options):
    """A circular shift in time."""

    max_s: float | None = Field(
        default=None, gt=0, description="Largest shift either way, in seconds; default: anywhere."
    )


class GainOptions(Options):
    """A random level."""

    low_db: float = Field(default=-6.0, description="Lowest gain, in dB.")
    high_db: float = Field(default=6.0, description="Highest gain, in dB.")

    @model_validator(mode="after")
    def _check(self) -> GainOptions:
        if self.low_db > self.high_db:
            raise ValueError("low_db is above high_db")
        return self


class NoiseOptions(Options):
    """Noise mixed in at a random signal-to-noise ratio."""

    color: Literal["white", "pink"] = Field(
        default="white", description="Spectrum of the generated noise; unused with `folder`."
    )
    folder: str | None = Field(
        default=None, description="Folder of sound files to mix in instead of generated noise."
    )
    low_db: float = Field(default=5.0, description="Lowest signal-to-noise ratio, in dB.")
    high_db: float = Field(default=30.0, description="Highest signal-to-noise ratio, in dB.")
    share: float = Field(default=1.0, ge=0, le=1, description="Share of samples that get noise.")

    @model_validator(mode="after")
    def _check(self) -> NoiseOptions:
        if self.low_db > self.high_db:
            raise ValueError("low_db is above high_db")
        return self


class EqualiseOptions(Options):
    """A random smooth filter."""

    std_db: float = Field(default=4.0, ge=0, description="Deviation of the gains, in dB.")
    points: int = Field(
        default=5, ge=2, description="Points, evenly spaced in mel, that gains are drawn at."
    )


class SpeedOptions(Options):
    """Playing a sample faster or slower: length and pitch change together."""

    factors: tuple[float, ...] = Field(
        default=(0.9, 1.0, 1.1),
        min_length=1,
        description="Speeds to draw from, 1 = unchanged; two decimals.",
    )

    @model_validator(mode="after")
    def _check(self) -> SpeedOptions:
        if not all(0.25 <= factor <= 4 for factor in self.factors):
            raise ValueError("speeds lie between 0.25 and 4")
        return self


class SpecAugmentOptions(Options):
    """Stretches of time and bands of frequency set to the mean."""

    time_masks: int = Field(default=2, ge=0, description="Stretches masked in a sample.")
    time_mask_s: float = Field(default=0.5, ge=0, description="Longest stretch, in seconds.")
    max_time_share: float = Field(
        default=0.25, gt=0, le=1, description="A stretch is at most this share of the sample."
    )
    freq_masks: int = Field(default=2, ge=0, description="Bands masked in a sample.")
    freq_mask_mels: int = Field(default=24, ge=0, description="Widest band, in mel filters.")


class MixupOptions(Options):
    """Mixtures of two samples, whose targets are mixed alike."""

    alpha: float = Field(
        default=0.5, gt=0, description="Of the Beta(alpha, alpha) that the share is drawn from."
    )
    share: float = Field(default=1.0, ge=0, le=1, description="Share of rows that are mixed.")
    domain: Literal["features", "power"] = Field(
        default="features",
        description="Mix features as they are, or log-mel as the powers of two sounds.",
    )
