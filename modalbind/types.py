"""What passes between the stages: frozen records, with next to no behaviour of their own.

Letters for axes, here and in every docstring: `n` rows of the modality, `m` anchor
embeddings (columns), `dim` the anchor space, `time` the padded axis of features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of a manifest: one sample of the modality and one of its texts.

    Attributes:
        sample: Key of the sample: its path relative to the root, or a name in a generated world.
        text: The text, or None when the sample is paired with a picture alone.
        language: Language of `text`, as a BCP 47 style tag.
        image: Key of a picture paired with the sample, if any.
        split: `train`, `val`, `test`, or empty when the manifest does not say.
        fold: Fold for k-fold evaluation, or empty.
        group: What must not be cut by a split: source recording, speaker, place.
        positive_key: Rows that share it are never each other's negatives.
        columns: Every other column, as text.
        sample_language: Language of the sample itself where it has one, as texts and speech do.
    """

    sample: str
    text: str | None
    language: str = "en"
    image: str | None = None
    split: str = ""
    fold: str = ""
    group: str = ""
    positive_key: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    sample_language: str = ""


@dataclass(frozen=True, slots=True)
class TextSample:
    """A sample of a modality whose samples are texts (`ModalitySpec.is_text`).

    Attributes:
        text: The text itself.
        language: As a BCP 47 style tag; None if it is not known.
    """

    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class AnchorItem:
    """One thing to embed in the anchor space.

    Attributes:
        key: What a table of vectors knows it by: the text itself, or a relative path.
        content_hash: 32 bytes; equal content has equal hashes wherever it lies.
        load: Returns the content: `str` for text, `PIL.Image.Image` for a picture. A loader
            of a file raises `BrokenSampleError` if it cannot be decoded.
        language: Of a text, else None.
    """

    key: str
    content_hash: bytes
    load: Callable[[], Any]
    language: str | None = None


def text_item(text: str, language: str | None = None) -> AnchorItem:
    """Return the anchor-side item of a text; its key is the text itself."""
    digest = hashlib.sha256(text.encode()).digest()
    return AnchorItem(text, digest, partial(str, text), language)


@dataclass(frozen=True, slots=True)
class AnchorSide:
    """The anchor side of a batch in one modality: what the rows are pulled towards.

    Attributes:
        modality: `text` or `image` (or whatever the anchor space holds).
        embeddings: Unit norm, float32 `(m, dim)`; distinct anchors of the batch.
        positives: Float `(n, m)`, each row sums to one: how much of row i's target column j is.
            A row of zeros has no anchor on this side.
        excluded: Bool `(n, m)`: columns that are neither positive nor negative for a row
            because they share its positive key. Where the columns are a whole bank, this and
            `positives` are sparse tensors, by coordinates.
        weight: Share of this side in the loss.
    """

    modality: str
    embeddings: Tensor
    positives: Tensor
    excluded: Tensor
    weight: float = 1.0

    def to_dense(self) -> AnchorSide:
        """Return the side with dense targets."""
        return replace(self, positives=self.positives.to_dense(), excluded=self.excluded.to_dense())


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One batch of pairs, padded.

    Of several processes each has its own rows of the features; all else is of the whole batch.

    Attributes:
        features: Float32 `(n, time, ...)`, or `(n, ...)` when nothing is padded.
        valid_mask: Bool `(n, time)`, True = real data; None when nothing is padded.
        sides: Anchor sides, at least one.
        samples: Keys of the rows.
    """

    features: Tensor
    valid_mask: Tensor | None
    sides: tuple[AnchorSide, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        step: 1 for the first optimizer update.
        epoch: From 0.
        loss: In nats.
        chance_loss: Loss of embeddings that know nothing, such as `ln` of the candidate count;
            None if the objective cannot tell.
        lr: Learning rate of the head.
        scale: 1 / temperature, of the first anchor side.
        grad_norm: Before clipping.
        samples: Rows seen in this step, over all processes.
    """

    step: int
    epoch: int
    loss: float
    chance_loss: float | None
    lr: float
    scale: float
    grad_norm: float
    samples: int
