"""Zero-shot classification: the nearest class vector, with ties in expectation.

Pure functions; whoever calls embeds the prompts. Letters: `n` items, `c` classes, `dim`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from modalbind.errors import InputError, ShapeError
from modalbind.evaluation.bootstrap import Floats, MetricScore
from modalbind.evaluation.retrieval import check_finite, compute_retrieval

GENERIC = "generic"
_TEMPLATES = TypeAdapter(dict[str, tuple[str, ...]])
BARE_TEMPLATE = "{label}"
"""The class name alone: the one prompt that every table of vectors can be expected to hold."""


@dataclass(frozen=True, slots=True)
class ZeroShotScore:
    """One classification without training examples.

    Attributes:
        n_items: Items classified.
        n_classes: Classes to choose from.
        n_groups: Groups that the interval resamples.
        top1: Accuracy; chance is `1 / n_classes`.
        per_item: Float64 `(n_items,)`: probability of the right class, 0 or 1 unless tied.
    """

    n_items: int
    n_classes: int
    n_groups: int
    top1: MetricScore
    per_item: Floats


def compute_zero_shot(
    embeddings: Tensor,
    prompts: Tensor,
    labels: Tensor,
    *,
    groups: Sequence[str | int] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    tile: int = 1024,
) -> ZeroShotScore:
    """Score how often an item's nearest class vector is that of its own class.

    An item tied between several classes, its own among them, counts as one over their number,
    so a constant encoder scores `1 / c`.

    Args:
        embeddings: Of the items, `(n, dim)`.
        prompts: Class vectors `(c, dim)`, see `compute_class_vectors`.
        labels: Int64 `(n,)` in 0..c-1.
        groups: Group of each item, for the interval; None makes each its own.
        bootstrap: Resamples of the interval.
        seed: Of the resamples.
        tile: Items compared at once.

    Raises:
        ShapeError: If shapes do not fit or a label names no class.
        NonFiniteError: If an embedding is not finite.
    """
    classes = len(prompts)
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        raise ShapeError(
            f"labels in 0..{classes - 1}; found {int(labels.min())}..{int(labels.max())}; "
            "number the labels in the order of the class vectors"
        )
    score = compute_retrieval(
        embeddings,
        prompts,
        labels,
        torch.arange(classes),
        query_groups=groups,
        bootstrap=bootstrap,
        seed=seed,
        tile=tile,
    )
    return ZeroShotScore(
        n_items=score.n_queries,
        n_classes=classes,
        n_groups=score.n_groups,
        top1=score.metrics["recall_at_1"],
        per_item=score.per_query["recall_at_1"],
    )


def compute_class_vectors(prompts: Sequence[Tensor]) -> Tensor:
    """Average the prompts of each class: normalise, mean, normalise.

    Args:
        prompts: For each class, the embeddings of its prompts `(prompts, dim)`.

    Returns:
        Unit-norm float32 `(c, dim)`.

    Raises:
        ShapeError: If there is no class, or one has no prompt.
        NonFiniteError: If an embedding is not finite.

    Source:
        Radford et al. 2021 (arXiv 2103.00020), section 3.1.4, prompt ensembling.
    """
    if not prompts or any(group.ndim != 2 or not len(group) for group in prompts):
        raise ShapeError(
            f"prompts (prompts, dim) for each class; {[tuple(p.shape) for p in prompts]}; "
            "give every class at least one"
        )
    for number, group in enumerate(prompts):
        check_finite(group, f"prompts of class {number}")
    means = [F.normalize(group.float(), dim=1).mean(dim=0) for group in prompts]
    return F.normalize(torch.stack(means), dim=1)


def build_prompts(
    labels: Sequence[str], templates: Mapping[str, Sequence[str]], language: str
) -> list[tuple[str, ...]]:
    """Write the prompts of each class.

    Args:
        labels: Class names in that language.
        templates: By language; `load_templates()` has generic ones. A language that is not
            there, also without its region (`pt` for `pt-BR`), takes the class name alone.
        language: BCP 47 style tag.

    Returns:
        For each label, its prompts, without repeats.

    Raises:
        InputError: If a template lacks `{label}`.
    """
    found = templates.get(language) or templates.get(language.split("-")[0]) or (BARE_TEMPLATE,)
    for template in found:
        if BARE_TEMPLATE not in template:
            raise InputError(
                f"prompt templates with {{label}}; {language} has {template!r}; "
                "write where the class name goes, e.g. 'a photo of {label}'"
            )
    # Not str.format: other braces in a template or a class name are plain text.
    return [
        tuple(dict.fromkeys(template.replace(BARE_TEMPLATE, label) for template in found))
        for label in labels
    ]


def load_templates(name: str = GENERIC, root: Path | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return prompt templates by language.

    A table of vectors has seldom more than the bare class names: use none there.

    Args:
        name: Of a set that ships with modalbind (`generic` speaks of no modality; `sound`,
            `picture`, `depth`, `thermal`), or a JSON file `{language: [template, ...]}`.
        root: Folder that a file's path starts at.

    Raises:
        InputError: If there is neither, or the file is not that.
    """
    folder = files("modalbind.evaluation").joinpath("templates")
    shipped = sorted(each.name.removesuffix(".json") for each in folder.iterdir())
    path = (root or Path()) / Path(name).expanduser()
    if name not in shipped and not path.is_file():
        raise InputError(
            f"prompt templates '{name}' asked for; no such file, and what ships with modalbind is "
            f"{', '.join(shipped)}; name one of these"
        )
    source = folder.joinpath(f"{name}.json") if name in shipped else path
    try:
        return _TEMPLATES.validate_json(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        first = " ".join(str(error).split())
        raise InputError(
            f"prompt templates in {source} asked for; {first}; write {{language: [template]}}"
        ) from error
