"""What a plugin offers (specs) and what its factories must return (protocols).

Specs are frozen, light and import nothing heavy: factories are named by import string
(`package.module:function`) and imported when first used. Options are pydantic models with
`extra="forbid"`; every field has a description with its unit. Nothing here knows a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from modalbind.types import AnchorItem, Pair

if TYPE_CHECKING:
    import torch
    from torch import Tensor

API_VERSION = 1
"""Version of this contract; a plugin states the one that it was written for."""


class Options(BaseModel):
    """Base of every options model: unknown names are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoOptions(Options):
    """For specs that have nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What all specs share.

    Attributes:
        name: Unique within its kind; lower case, digits, `-` and `_`.
        summary: One sentence for the list of plugins.
        api_version: `API_VERSION` that the plugin was written for.
        options: Model of the options; defaults live there and nowhere else.
        build: Import string of the factory; what it takes and returns is said by the subclass.
        example: Options that build it small and with no download; `modalbind plugins check`
            builds it with these, and with the quick start's where that uses it.
    """

    name: str
    summary: str
    api_version: int
    build: str
    options: type[Options] = NoOptions
    example: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalitySpec(Spec):
    """A kind of input. `build(options) -> Modality`.

    Attributes:
        unit: What a sample's numbers mean, e.g. `waveform in -1..1, sample rate in Hz`.
        suffixes: File suffixes it reads, lower case with the dot.
        default_recipe: Recipe for a user's own pairs.
        quickstart_recipe: Recipe that runs with no data and no network.
        perceives: Attributes of the generated world that this modality can sense; empty if
            it has no renderer. Captions of its samples mention no others.
        is_text: Its samples are texts, each in a language, and no files: data sets make them
            (`TextSample`), and nothing is rendered.
    """

    unit: str
    suffixes: tuple[str, ...]
    default_recipe: str
    quickstart_recipe: str
    perceives: tuple[str, ...] = ()
    is_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec(Spec):
    """An encoder for one modality. `build(options, modality) -> Encoder`.

    Attributes:
        modality: Whose features it takes.
        starts_from: Modality of the anchor space whose own tower it starts from, such as `image`;
            then `build(options, modality, exported)`, where `exported` is the file that the
            anchor wrote of it (safetensors, with the architecture as JSON in its metadata), or
            None when a finished run is opened by its `portable_options`.
        example_modality: Options of that modality that fit `example`, beside the quick start's.
    """

    modality: str
    starts_from: str = ""
    example_modality: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set. `build(options, root) -> PairedDataset`.

    Attributes:
        modality: Which it has samples of, or `*` for any; then the factory takes the
            `ModalitySpec` as a third argument.
        example_modality: Options of the modality that its files are read with, beside the quick
            start's.
    """

    modality: str
    example_modality: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSpec(Spec):
    """An augmentation. `build(options, modality) -> callable(value, generator) -> value`.

    Attributes:
        modality: Which it is for, or `*`.
        stage: `sample` takes what `Modality.load` returns; `features` takes one sample's
            features; `batch` takes a `PairBatch`. It never changes its argument, and draws
            randomness from the `torch.Generator` that it is given and from nothing else.
        example_modality: Options of the modality that fit `example`, beside the quick start's.
    """

    modality: str
    stage: Literal["sample", "features", "batch"]
    example_modality: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSpec(Spec):
    """A kind of anchor space. `build(source, tag, options) -> AnchorSpace`.

    Attributes:
        example_source: What follows `kind:` in the spec of a small space of this kind that needs
            no download; empty if there is none.
    """

    example_source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec(Spec):
    """An objective. `build(options) -> Objective`.

    Attributes:
        has_parts: It can be asked against a whole bank of anchors: it has `parts()`, objectives
            and their shares in it, each with `is_rowwise`, whether it is a mean over the rows
            that have a positive, each by itself.
    """

    has_parts: bool = False


class Modality(Protocol):
    """How samples of one modality are read and turned into features; no learned weights.

    Instances are picklable (loader workers). All methods are deterministic.

    Optional: `prepare(samples)`, called with a list of samples before features of any of them are
    asked for. A modality whose features are what a frozen encoder makes of a sample computes them
    there, many at once; it may have `space`, the frozen space (`open_space`) that it asks.
    """

    is_padded: bool
    """True if features are `(time, ...)` of varying length, to be padded at the end with zeros."""

    def load(self, path: Path, key: str) -> Any:
        """Read one sample.

        Args:
            path: The file, inside the data root. May not exist when samples live in a table.
            key: The sample's key as the manifest has it.

        Returns:
            The plugin's own sample type; the core passes it on unread.

        Raises:
            BrokenSampleError: If it is missing, truncated, empty, not finite or too large.
        """

    def render(self, scene: Any, seed: int) -> Any:
        """Make the sample of a generated scene; same scene and seed, same sample."""

    def features(self, sample: Any) -> Tensor:
        """Return float32 `(time, ...)` if padded, else a fixed shape."""

    def windows(self, sample: Any) -> list[tuple[float, float, Any]]:
        """Cut a long sample into `(start_s, end_s, sample)`; one item if it fits."""

    def content_hash(self, path: Path, key: str) -> bytes:
        """32 bytes that identify the sample's content and everything that `load` depends on."""

    def describe(self, sample: Any) -> Mapping[str, float]:
        """Trivial features (duration, level …) that a control may use, by name with unit."""


class Encoder(Protocol):
    """A `torch.nn.Module`: features to one pooled vector a sample. Not normalised.

    Also expected: `layer_groups() -> list[list[nn.Module]]` from input to output for layer-wise
    decay and freezing, and `lora_targets: tuple[str, ...]`, names of linear layers.

    Optional: `set_progress(share)`, told before each step how much of the run is done, for
    schedules; `split_at(groups) -> (frozen, rest)`, the encoder cut after so many layer groups,
    sharing its weights: the first maps features and valid mask to hidden states `(n, time, width)`
    and theirs, the second is an encoder of these. Frozen layers then run once a sample, not once
    an epoch.
    """

    width: int
    lora_targets: tuple[str, ...]

    def __call__(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        """Map `(n, time, ...)` and `(n, time)` to `(n, width)`, blind to padding."""

    def portable_options(self) -> Options:
        """Options that build this architecture again without any published weights at hand."""

    def layer_groups(self) -> Sequence[Sequence[torch.nn.Module]]:
        """Modules by depth, the input first."""


@runtime_checkable
class PairedDataset(Protocol):
    """Where pairs and their samples come from."""

    @property
    def name(self) -> str:
        """Name in the report."""

    @property
    def licence(self) -> str:
        """Licence of the data, stated in the report."""

    def pairs(self) -> Sequence[Pair]:
        """Return all rows, in a fixed order."""

    def load_sample(self, key: str, modality: Modality) -> Any:
        """Return the sample, read or rendered; raises `BrokenSampleError`."""

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        """Return 32 bytes that identify the sample's content."""

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        """Return the anchor-side item (text, image) of that key."""


class AnchorSpace(Protocol):
    """A frozen embedding space.

    Invariant: nothing about it changes after it is built; `compute_fingerprint` reads the live
    weights each time that it is called, so that the claim can be checked.

    Optional: `copy_tower(modality) -> (architecture, weights)`, a JSON-able description and a
    state dict of its own tower of that modality, for encoders that start from it
    (`EncoderSpec.starts_from`). They get a copy in a file, never the anchor.
    """

    name: str
    dim: int
    modalities: tuple[str, ...]
    is_table: bool
    """True if it has vectors by key and no weights; then it needs no cache."""

    # A space of parts may have `looked_up`, the modalities that it has by key alone.
    # A space may also have `is_composed = True`: it is made of parts that have caches of their
    # own and joins them at once, so it needs none. Then it has `verify()` as `OpenAnchor` has,
    # and `computed` and `reused`, counts of its parts' embeddings.

    def compute_fingerprint(self) -> str:
        """Hash weights, tokenizer, preprocessing, dim and normalisation as they are now."""

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the space does not hold that modality, or a table lacks a key.
        """


Objective = Callable[..., Any]
"""Pure function `(modality, anchor, positives, excluded, scale, bias) -> loss`.

`modality` `(n, dim)` and `anchor` `(m, dim)` unit norm; `positives` float `(n, m)`, rows sum to
one or zero; `excluded` bool `(n, m)`; `scale` and `bias` scalar tensors. Returns a scalar in nats.
It carries `initial_scale: float`, `learn_scale: bool`, `max_scale: float`, `initial_bias: float |
None` (None: no bias) for whoever owns those parameters, and may carry `side_scales: Mapping[str,
float]`, the initial scale of single anchor sides. `chance(positives, excluded) -> float` is the
loss of embeddings that know nothing, NaN if it cannot be told.
"""
