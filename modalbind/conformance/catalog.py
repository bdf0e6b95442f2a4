"""The list of checks: name, what it is about, what must have passed before, what it asks.

`encoder.padding` is the function `check_padding` of the module `encoder` beside this one; modules
are imported when a check of theirs runs, so that listing checks stays light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract.

    Attributes:
        name: `group.promise`.
        kind: What it is about: `plugin`, `offer` (whatever a plugin offers), or one kind of offer.
        asks: The promise, in one sentence.
        needs: Checks of the same subject without which it says nothing: where one of them fails,
            this is skipped.
    """

    name: str
    kind: str
    asks: str
    needs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """What stands before the dot: the module that it lies in."""
        return self.name.partition(".")[0]

    def load(self) -> Callable[[Any], None]:
        """Import the function that tries it."""
        module, _, promise = self.name.partition(".")
        function = getattr(
            import_module(f"modalbind.conformance.{module}"), f"check_{promise.replace('-', '_')}"
        )
        return cast(Callable[[Any], None], function)


def _rows(kind: str, *rows: tuple[str, str] | tuple[str, str, tuple[str, ...]]) -> list[Check]:
    return [Check(name, kind, *rest) for name, *rest in rows]


_BUILT = ("modality.builds",)
_FEATURES = ("modality.features",)
_SAME = ("modality.features", "modality.repeats")
_OUTPUT = ("encoder.output",)
_NORMED = ("encoder.output", "encoder.unit-norm")
_FIXED = (*_NORMED, "encoder.eval-is-fixed")
_MADE = ("augmentation.keeps-form",)
_PAIRS = ("dataset.builds",)
_LOSS = ("objective.loss",)
_SPACE = ("anchor.unit-norm",)

CHECKS: tuple[Check, ...] = (
    *_rows(
        "plugin",
        (
            "registration.metadata",
            "The distribution has a version and asks for modalbind from a version on, uncapped.",
        ),
        (
            "registration.light-import",
            "Importing the plugin's package and calling its hooks imports nothing heavy.",
        ),
        (
            "registration.import-time",
            "Doing so takes at most as long as a bare `import modalbind.api`, and half a second.",
            ("registration.light-import",),
        ),
        ("registration.no-network", "Doing so opens no connection."),
        ("registration.no-files", "Doing so writes no file."),
        (
            "registration.recipes",
            "All recipes that it brings, and those that its modalities name, resolve.",
        ),
    ),
    *_rows(
        "offer",
        ("registration.factory", "The factory that `build` names can be imported and called."),
        (
            "registration.options",
            "Each option has a description; a fractional number says its unit, in its name "
            "(`_s`) or its description (`dB`, or what it is a share, factor or ratio of), unless "
            "it is bounded to 0..1.",
        ),
    ),
    *_rows(
        "modality",
        ("modality.builds", "Its quick start's data set gives samples of it."),
        (
            "modality.features",
            "Features are finite float32, `(time, ...)` or of one fixed shape as `is_padded` says.",
            _BUILT,
        ),
        (
            "modality.repeats",
            "The same key gives the same sample, and the same features.",
            _FEATURES,
        ),
        ("modality.leaves-sample", "No method changes the sample that it is given.", _FEATURES),
        ("modality.picklable", "It pickles, and the copy gives equal features.", _SAME),
        (
            "modality.workers",
            "Two loader processes give the features that none gives.",
            (*_SAME, "modality.picklable"),
        ),
        (
            "modality.windows",
            "A sample is cut into `(start_s, end_s, sample)`, in order, each with features.",
            _FEATURES,
        ),
        (
            "modality.describe",
            "Trivial features are finite numbers under names that all samples share.",
            _FEATURES,
        ),
        (
            "modality.content-hash",
            "A file's hash is 32 bytes, follows its content, not its place; a missing file is "
            "refused.",
            _BUILT,
        ),
        (
            "modality.bad-files",
            "A missing or empty file, a folder and random bytes are a `BrokenSampleError`, never "
            "a sample.",
            _BUILT,
        ),
        (
            "modality.cut-files",
            "A real file that was cut short is a `BrokenSampleError`, never a sample.",
            _BUILT,
        ),
        (
            "modality.odd-samples",
            "Tiny, huge, not finite, misshapen and foreign samples give finite features or a "
            "`ModalbindError`.",
            _FEATURES,
        ),
    ),
    *_rows(
        "encoder",
        ("encoder.builds", "It is a torch module with width, LoRA targets and layer groups."),
        (
            "encoder.output",
            "It maps a batch to finite float32 `(n, width)`.",
            ("encoder.builds",),
        ),
        ("encoder.unit-norm", "Behind a head, every embedding has unit norm.", _OUTPUT),
        ("encoder.eval-is-fixed", "In eval mode nothing is random.", _NORMED),
        (
            "encoder.eval-after-train",
            "Eval mode is as free of chance after training mode as before.",
            _FIXED,
        ),
        ("encoder.tells-apart", "Different samples have different embeddings.", _FIXED),
        ("encoder.leaves-input", "It does not change features or mask.", _OUTPUT),
        ("encoder.order", "A batch in another order gives the same embeddings.", _FIXED),
        (
            "encoder.batch",
            "A sample alone has the embedding that it has in a batch.",
            (*_FIXED, "encoder.order"),
        ),
        (
            "encoder.padding",
            "More padding does not change an embedding.",
            (*_FIXED, "encoder.batch"),
        ),
        (
            "encoder.gradient",
            "The gradient reaches every layer group that trains, and no anchor embedding.",
            (*_FIXED, "encoder.tells-apart"),
        ),
        (
            "encoder.half-precision",
            "Under bfloat16 autocast embeddings stay what they are.",
            _FIXED,
        ),
        (
            "encoder.save-load",
            "Built again from `portable_options` and its saved weights, it gives the same bits.",
            _FIXED,
        ),
        (
            "encoder.layer-groups",
            "Layer groups hold each parameter of their layers once, and nothing else.",
            ("encoder.builds",),
        ),
        ("encoder.lora-targets", "Each LoRA target names a linear layer.", ("encoder.builds",)),
        (
            "encoder.odd-samples",
            "What the modality makes of odd samples is embedded, or refused by a `ModalbindError`.",
            (*_FIXED, "encoder.batch"),
        ),
    ),
    *_rows(
        "augmentation",
        ("augmentation.builds", "It can be built for a modality that it is for."),
        (
            "augmentation.keeps-form",
            "What comes out has the type, dtype and axes of what went in, its mask included.",
            ("augmentation.builds",),
        ),
        (
            "augmentation.seeded",
            "The generator that it is given decides all; the global state is neither read nor "
            "changed.",
            _MADE,
        ),
        ("augmentation.leaves-argument", "It does not change its argument.", _MADE),
        ("augmentation.finite", "Features stay finite.", _MADE),
    ),
    *_rows(
        "dataset",
        ("dataset.builds", "It can be built and has pairs, a name and a licence."),
        ("dataset.repeats", "Built twice, it has the same pairs in the same order.", _PAIRS),
        ("dataset.groups", "No group, and no sample, stands in two splits.", _PAIRS),
        (
            "dataset.loads",
            "Each key can be read, and leads to one sample of its own, the same each time.",
            _PAIRS,
        ),
        (
            "dataset.hashes",
            "A sample's hash is 32 bytes, the same each time, and its own.",
            (*_PAIRS, "dataset.loads"),
        ),
        (
            "dataset.anchor-items",
            "Texts and pictures of its pairs are there to be embedded.",
            _PAIRS,
        ),
        (
            "dataset.broken-samples",
            "Where the modality refuses a sample, so does the data set: it gives no other.",
            _PAIRS,
        ),
    ),
    *_rows(
        "objective",
        (
            "objective.loss",
            "It is a finite scalar for any number of rows and columns, square or not.",
        ),
        ("objective.scale", "Scale and bias that it carries are in their bounds.", _LOSS),
        (
            "objective.gradient",
            "The gradient reaches the modality's embeddings, and no anchor embedding.",
            _LOSS,
        ),
        ("objective.excluded", "Columns that a row excludes do not matter to it.", _LOSS),
        ("objective.prefers-pairs", "Matching pairs cost less than shuffled ones.", _LOSS),
    ),
    *_rows(
        "anchor",
        ("anchor.builds", "It opens, with a name, a dim and modalities."),
        (
            "anchor.unit-norm",
            "Embeddings are unit-norm float32 `(n, dim)` on the CPU.",
            ("anchor.builds",),
        ),
        ("anchor.batch", "An item alone has the embedding that it has among others.", _SPACE),
        (
            "anchor.fingerprint",
            "Its fingerprint is the same each time, and when it is opened again.",
            ("anchor.builds",),
        ),
        (
            "anchor.refuses",
            "A modality that it does not hold is an `AnchorError`.",
            ("anchor.builds",),
        ),
    ),
    *_rows(
        "modality",
        (
            "quickstart.learns",
            "It beats its own shuffled control, offline; both take at most 180 s of a processor.",
            _FEATURES,
        ),
    ),
)

BY_NAME = {check.name: check for check in CHECKS}


def select(names: tuple[str, ...]) -> set[str]:
    """Return the names of the checks that `names` means: whole names, or groups.

    Raises:
        KeyError: With the first that is neither.
    """
    chosen: set[str] = set()
    for name in names:
        found = {check.name for check in CHECKS if name in (check.name, check.group)}
        if not found:
            raise KeyError(name)
        chosen |= found
    return chosen
