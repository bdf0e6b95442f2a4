"""All that a run reads before anything is trained: samples, anchor, the plan of its test.

Shared by `align` and `evaluate`, so that both see the same samples and the same pools.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.calibration import Calibration, fit_calibration
from modalbind.anchors.opened import OpenAnchor
from modalbind.data.links import Link, read_links
from modalbind.data.loader import AnchorBank
from modalbind.data.prepare import PreparedData, keep_fractions, prepare_data
from modalbind.data.samples import Sample, list_anchors
from modalbind.data.store import SampleStore, has_files
from modalbind.data.webdataset import shared_folder
from modalbind.errors import (
    AnchorError,
    BrokenSampleError,
    DataError,
    ManifestError,
    RecipeError,
)
from modalbind.evaluation.pools import Pool, TestPlan, build_pool, plan_test
from modalbind.evaluation.protocol import ClassSet
from modalbind.evaluation.zero_shot import build_prompts, compute_class_vectors, load_templates
from modalbind.interfaces import Modality, PairedDataset
from modalbind.languages import LanguageTable, find_table
from modalbind.plugin_manager import build, nearest
from modalbind.recipe import Recipe, Resolved
from modalbind.recipe.schema import (
    CalibrationSection,
    Choice,
    EvaluationSection,
    ZeroShotSection,
)
from modalbind.together import embed_together, prepare_together
from modalbind.types import AnchorItem

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What `open_inputs` found.

    Attributes:
        modality: Reads samples.
        data: Samples by use.
        anchor: The frozen space.
        banks: Anchor embeddings by modality.
        test: Labels and pools of the test split.
        val: The same of the val split, or None.
        class_sets: Zero-shot classifications of the test split.
        links: Texts and pictures of the test that no sample is paired with.
        languages: What is known of the languages of its text encoder.
        calibration_files: Named data that `evaluation.calibration` is fitted on.
        anchor_languages: Languages that the anchor is asked for texts in; empty if in all.
    """

    modality: Modality
    data: PreparedData
    anchor: OpenAnchor
    banks: Mapping[str, AnchorBank]
    test: TestPlan
    val: TestPlan | None
    class_sets: tuple[ClassSet, ...]
    links: tuple[Link, ...]
    languages: LanguageTable
    calibration_files: tuple[Path, ...] = ()
    anchor_languages: tuple[str, ...] = ()

    def embed_pools(self, plan: TestPlan) -> list[Pool]:
        """Return the pools of a plan with their embeddings."""
        return [build_pool(pool, self.banks[pool.modality].pick(pool.keys)) for pool in plan.pools]

    def load_all(self, samples: Sequence[Sample]) -> Iterable[Any]:
        """Read samples one after the other."""
        return map(self.data.store.load, samples)

    def fit_anchor_calibration(self, section: CalibrationSection) -> Calibration:
        """Fit the anchor's side of a test's calibration on the named data."""
        dataset = self.data.store.datasets[0]
        named = _list_named(self.calibration_files, dataset, self.anchor, self.anchor_languages)
        return _fit_calibration(self.anchor, section, named)

    def mean_anchors(self, samples: Sequence[Sample], sides: Sequence[str]) -> Tensor:
        """Return for each sample the mean of its anchor embeddings, unit norm, `(n, dim)`."""
        means = []
        for sample in samples:
            picked = [
                self.banks[side].pick([key for key, _ in list_anchors(sample, side)])
                for side in sides
            ]
            means.append(torch.cat(picked).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(means), dim=1)


def build_modality(resolved: Resolved) -> Modality:
    """Build what reads the samples."""
    return build(resolved.modality, resolved.modality_options)  # type: ignore[no-any-return]


def place_side_files(recipe: Recipe, base: Path) -> EvaluationSection:
    """Return the section for other pairs than the run's: where its links and class names lie.

    Args:
        recipe: Of the run.
        base: Folder of the other pairs; what lies there wins over what the run was tested with.
    """
    section = recipe.evaluation
    homes = [Path(recipe.data.root)] if recipe.data.root is not None else []
    homes += [folder for source in recipe.data.sources[:1] if (folder := _find_home(source))]

    def place(name: str) -> str:
        is_there = not homes or (base / Path(name).expanduser()).exists()
        return name if is_there else str((homes[0] / name).expanduser().absolute())

    links = tuple(map(place, section.links))
    zero_shot = tuple(
        each.model_copy(update={"labels": place(each.labels)}) for each in section.zero_shot
    )
    calibration = section.calibration
    if calibration is not None:
        files = tuple(map(place, calibration.data))
        calibration = calibration.model_copy(update={"data": files})
    return section.model_copy(
        update={"links": links, "zero_shot": zero_shot, "calibration": calibration}
    )


def _find_home(source: Choice) -> Path | None:
    """Return the folder that the side files of the user's own pairs lie in; None if it is none."""
    path = Path(str(source.options.get("path", ""))).expanduser()
    if source.kind == "manifest":
        return path.parent
    if source.kind == "webdataset":
        return shared_folder(str(path))
    return path if source.kind == "hf" and path.is_dir() else None


def build_datasets(resolved: Resolved) -> tuple[list[PairedDataset], list[float]]:
    """Build the data sets of a recipe, and their weights in an epoch."""
    root = _data_root(resolved.recipe.data.root)
    datasets, weights = [], []
    for spec, options in resolved.datasets:
        arguments: list[Any] = [options, root]
        if spec.modality == "*":
            arguments.append(resolved.modality)
        datasets.append(build(spec, *arguments))
        weights.append(float(getattr(options, "weight", 1.0)))
    return datasets, weights


@contextmanager
def _refusing_what_is_broken() -> Iterator[None]:
    """Turn what cannot be read into wrong input: nothing has been trained yet."""
    try:
        yield
    except BrokenSampleError as error:
        raise DataError(
            f"all files that the run needs asked for; {error}; mend that file, or take it out of "
            "the data"
        ) from error


@_refusing_what_is_broken()
def open_inputs(
    resolved: Resolved,
    cache: AnchorCache,
    device: str,
    on_progress: OnProgress,
    *,
    tests_all: bool = False,
    embeds: bool = True,
    calibration: Path | None = None,
) -> RunInputs:
    """Read the data, open the anchor and embed its side of everything once.

    Args:
        resolved: The recipe.
        cache: Of anchor embeddings.
        device: Where the anchor's weights compute.
        on_progress: Told what is going on.
        tests_all: Nothing is trained: take the test split, or all rows if none is named.
        embeds: False checks everything and leaves the banks empty.
        calibration: File of the run that keeps what `anchor.calibration` was fitted to; where
            there is none, it is fitted.

    Raises:
        InputError: For data or an anchor that cannot be used; nothing has been trained.
    """
    recipe = resolved.recipe
    modality = build_modality(resolved)
    if recipe.train.lengths is not None and not modality.is_padded:
        raise RecipeError(
            f"train.lengths asked for; features of {recipe.modality.name} have one shape, not a "
            "length; leave it out"
        )
    root = _data_root(recipe.data.root)
    datasets, weights = build_datasets(resolved)
    anchor = open_anchor(recipe.anchor, resolved.anchor, cache, device, resolved.anchor_options)
    sides = _check_sides(recipe.anchor.sides, anchor)
    store = SampleStore(datasets, modality, recipe.data.memory_mib)
    side_file = partial(_find, root=root, dataset=datasets[0])
    languages = recipe.evaluation.languages
    anchor_languages = languages and (*languages, *recipe.data.train_languages)
    if recipe.anchor.calibration is not None and embeds:
        files = [side_file(name) for name in recipe.anchor.calibration.data]
        named = partial(_list_named, files, datasets[0], anchor, anchor_languages)
        _calibrate_anchor(anchor, recipe.anchor.calibration, calibration, named)
    test_files = tuple(
        side_file(name) for name in getattr(recipe.evaluation.calibration, "data", ())
    )
    links = [
        (path, link)
        for path in map(side_file, recipe.evaluation.links)
        for link in read_links(path)
        if link.modality in anchor.modalities
    ]
    opens_pictures = _opens_pictures(anchor, datasets, [link for _, link in links])
    if opens_pictures and recipe.data.check == "decode":
        links = _check_links(links, datasets[0], tests_all)
    pictured = _list_pictured(sides) if opens_pictures else ()
    data = prepare_data(store, weights, recipe.data, sides, pictured=pictured, tests_all=tests_all)
    if recipe.anchor.fractions and not tests_all:
        train = keep_fractions(data.train, recipe.anchor.fractions, recipe.seed)
        data = replace(data, train=train)
    if embeds:
        prepare_together(modality, map(store.load, (*data.train, *data.val, *data.test)))
    if not tests_all:
        _check_asked(recipe, data)
    kept_links = tuple(link for _, link in links)
    test = restrict_plan(plan_test(data.test, kept_links), anchor, languages)
    _check_named(test_files, test)
    val = restrict_plan(plan_test(data.val, []), anchor, languages) if data.val else None
    table = find_table(
        recipe.evaluation.language_shares, _name_text_encoders(modality, anchor), root
    )
    prompts = _read_prompts(recipe.evaluation.zero_shot, side_file, data.test, tests_all)
    wanted = collect_items(data, [t for t in (test, val) if t], prompts, sides)
    banks = _embed_banks(anchor, wanted, on_progress) if embeds else _empty_banks(anchor, wanted)
    class_sets = tuple(found.embed(banks["text"]) for found in prompts) if embeds else ()
    return RunInputs(
        modality,
        data,
        anchor,
        banks,
        test,
        val,
        class_sets,
        kept_links,
        table,
        test_files,
        anchor_languages,
    )


Named = dict[tuple[str, str], list[AnchorItem]]
"""Items by modality and language."""


def _list_named(
    files: Sequence[Path], dataset: PairedDataset, anchor: OpenAnchor, languages: Sequence[str]
) -> Named:
    """Return the texts and pictures of named data, of texts those in languages that are used."""
    items: Named = {}
    for link in (link for path in files for link in read_links(path)):
        is_used = link.modality != "text" or not languages or link.language in languages
        if link.modality in anchor.modalities and is_used:
            item = dataset.anchor_item(link.modality, link.key, link.language)
            items.setdefault((link.modality, link.language or ""), []).append(item)
    return items


def _check_named(files: Sequence[Path], plan: TestPlan) -> None:
    """Refuse named data that lacks a modality of the test, before anything is trained."""
    there = {link.modality for path in files for link in read_links(path)}
    lacking = [pool.modality for pool in plan.pools if files and pool.modality not in there]
    if lacking:
        raise AnchorError(
            f"asked to calibrate {lacking[0]}; {', '.join(map(str, files))} has "
            f"{', '.join(sorted(there))}; add {lacking[0]} to evaluation.calibration.data"
        )


def _calibrate_anchor(
    anchor: OpenAnchor,
    section: CalibrationSection,
    kept: Path | None,
    list_named: Callable[[], Named],
) -> None:
    """Calibrate the anchor as a run keeps it, or by a fit on the named data."""
    if kept is not None and kept.is_file():
        anchor.calibrate(Calibration.read(kept))
    else:
        anchor.calibrate(_fit_calibration(anchor, section, list_named()))


def _fit_calibration(anchor: OpenAnchor, section: CalibrationSection, items: Named) -> Calibration:
    """Embed named data and fit on it."""
    vectors = {group: anchor.embed(group[0], found) for group, found in items.items()}
    return fit_calibration(
        vectors, section.kind, by_language=section.by_language, shrinkage=section.shrinkage
    )


def _name_text_encoders(modality: Modality, anchor: OpenAnchor) -> list[str]:
    """Return what the text encoder of the tested languages is known by: the samples' own first."""
    own = getattr(modality, "space", None)
    spaces = [anchor] if own is None else [own]
    return [name for space in spaces for name in (space.spec, space.name)]


@dataclass(frozen=True, slots=True)
class _ClassPrompts:
    dataset: str
    language: str
    prompts: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    labels: tuple[int, ...]

    def embed(self, bank: AnchorBank) -> ClassSet:
        vectors: list[Tensor] = [
            bank.pick([(prompt, self.language) for prompt in prompts]) for prompts in self.prompts
        ]
        return ClassSet(
            self.dataset,
            self.language,
            compute_class_vectors(vectors),
            torch.tensor(self.rows, dtype=torch.int64),
            torch.tensor(self.labels, dtype=torch.int64),
        )


def _data_root(root: str | None) -> Path | None:
    if root is None:
        return None
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ManifestError(f"data root {path} asked for; no such folder; check --root")
    return path


def _find(name: str, root: Path | None, dataset: Any) -> Path:
    """Return a side file of the data: below the root, or the data set's own folder."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return path
    base = root if root is not None else getattr(dataset, "root", None)
    return path if base is None else Path(base) / path


def _check_sides(sides: Mapping[str, float], anchor: OpenAnchor) -> Mapping[str, float]:
    missing = [side for side in sides if side not in anchor.modalities]
    if missing or not sides:
        raise AnchorError(
            f"anchor.sides asked for {', '.join(sides) or 'nothing'}; {anchor.spec} holds "
            f"{', '.join(anchor.modalities)}; name one of these"
        )
    return sides


def _opens_pictures(
    anchor: OpenAnchor, datasets: Sequence[PairedDataset], links: Iterable[Link]
) -> bool:
    """Say whether the anchor reads files of pictures: it does, unless it is a table of vectors."""
    if anchor.is_table or "image" not in anchor.modalities:
        return False
    rows = (pair for dataset in datasets if has_files(dataset) for pair in dataset.pairs())
    return any(pair.image for pair in rows) or any(link.modality == "image" for link in links)


def _list_pictured(sides: Mapping[str, float]) -> tuple[str, ...]:
    """Return the parts whose pictures are embedded; training alone can do without."""
    return ("train", "val", "test") if "image" in sides else ("val", "test")


def _check_links(
    links: Sequence[tuple[Path, Link]], dataset: PairedDataset, tests_all: bool
) -> list[tuple[Path, Link]]:
    """Refuse a link whose picture cannot be read; on other pairs than the run's, leave it out."""
    kept = []
    for path, link in links:
        try:
            if link.modality == "image":
                dataset.anchor_item("image", link.key).load()
            kept.append((path, link))
        except BrokenSampleError as error:
            asked = f"picture '{link.key}' asked for by {path} of evaluation.links; {error}"
            if not tests_all:
                raise DataError(f"{asked}; mend the file, or take it out of the list") from error
            logger.warning("%s; it is left out", asked)
    return kept


def _check_asked(recipe: Recipe, data: PreparedData) -> None:
    """Refuse what the recipe asks of data that lacks it."""
    if recipe.train.select_every and not data.val:
        raise DataError(
            "train.select_every asked for a validation split; there is none; set "
            f"data.val_fraction, or mark rows with the split '{recipe.data.val_split}'"
        )
    section = recipe.evaluation
    asked = dict.fromkeys(section.control_columns, "control_columns")
    asked |= {each.label_column: "zero_shot.label_column" for each in section.zero_shot}
    samples = chain(data.train, data.test)
    there = {name for sample in samples for name, value in sample.columns.items() if value}
    for column, place in asked.items():
        if column not in there:
            near = nearest(column, there)
            raise DataError(
                f"column '{column}' asked for by evaluation.{place}; it is absent or empty, the "
                f"data has {', '.join(sorted(there))}; "
                + (f"did you mean '{near}'?" if near else "name one of these")
            )


def restrict_plan(plan: TestPlan, anchor: OpenAnchor, languages: Collection[str] = ()) -> TestPlan:
    """Leave out pools of modalities that the anchor space does not hold, and texts not asked for.

    Args:
        plan: Of a test.
        anchor: The space.
        languages: Of texts that are kept; empty keeps all.
    """
    kept = tuple(
        pool
        for pool in plan.pools
        if pool.modality in anchor.modalities
        and (pool.modality != "text" or not languages or pool.language in languages)
    )
    return TestPlan(plan.sample_labels, kept)


def _read_prompts(
    sections: Sequence[ZeroShotSection],
    side_file: Callable[[str], Path],
    samples: Sequence[Sample],
    may_lack: bool,
) -> list[_ClassPrompts]:
    return [
        found
        for section in sections
        for found in _read_classes(
            _with_templates(section, side_file), samples, may_lack, side_file(section.labels)
        )
    ]


def _with_templates(section: ZeroShotSection, side_file: Callable[[str], Path]) -> ZeroShotSection:
    """Return the section with its templates written out."""
    if not isinstance(section.templates, str):
        return section
    name = section.templates
    is_file = side_file(name).is_file()
    return section.model_copy(
        update={"templates": load_templates(str(side_file(name)) if is_file else name)}
    )


def _read_classes(
    section: ZeroShotSection, samples: Sequence[Sample], may_lack: bool, path: Path
) -> list[_ClassPrompts]:
    try:
        by_language = json.loads(path.read_text("utf-8"))
        names = {
            language: {str(label): str(name) for label, name in classes.items()}
            for language, classes in by_language.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise ManifestError(
            f"class names in {path} asked for; {error}; write {{language: {{label: name}}}}"
        ) from error
    found = []
    for language, classes in names.items():
        labels = sorted(classes)
        places = [
            (row, labels.index(value))
            for row, sample in enumerate(samples)
            if (value := sample.columns.get(section.label_column, "")) in classes
        ]
        if not places:
            asked = (
                f"zero-shot '{section.name}' asked for column '{section.label_column}'; no test "
                f"sample has a label of {path}"
            )
            if not may_lack:
                raise ManifestError(f"{asked}; check evaluation.zero_shot.label_column")
            logger.warning("%s; it is left out", asked)
            continue
        assert not isinstance(section.templates, str)  # they are written out
        prompts = build_prompts([classes[label] for label in labels], section.templates, language)
        rows, targets = zip(*places, strict=True)
        found.append(_ClassPrompts(section.name, language, tuple(prompts), rows, targets))
    return found


Wanted = dict[str, dict[Any, AnchorItem]]
"""Anchor-side items by modality and key in the bank."""


def collect_items(
    data: PreparedData,
    plans: Sequence[TestPlan],
    prompts: Sequence[_ClassPrompts],
    sides: Mapping[str, float],
) -> Wanted:
    """Gather each anchor-side item that training or a test needs, once.

    Args:
        data: Samples by use.
        plans: Of the tests.
        prompts: Of zero-shot classes.
        sides: That training pairs samples with.

    Returns:
        By modality and key in the bank.
    """
    sample_keys = (
        (side, key)
        for side in sides
        for sample in (*data.train, *data.val)
        for key, _ in list_anchors(sample, side)
    )
    pool_keys = ((pool.modality, key) for plan in plans for pool in plan.pools for key in pool.keys)
    prompt_keys = (
        ("text", (text, found.language))
        for found in prompts
        for texts in found.prompts
        for text in texts
    )
    wanted: Wanted = {"text": {}}
    for modality, key in dict.fromkeys(chain(sample_keys, pool_keys, prompt_keys)):
        wanted.setdefault(modality, {})[key] = _anchor_item(data, modality, key)
    return wanted


def _anchor_item(data: PreparedData, modality: str, bank_key: Any) -> AnchorItem:
    if modality == "text":
        text, language = bank_key
        return data.store.datasets[0].anchor_item("text", text, language)
    source, key = bank_key
    dataset: PairedDataset = data.store.datasets[source]
    return dataset.anchor_item(modality, key)


def _empty_banks(anchor: OpenAnchor, wanted: Wanted) -> dict[str, AnchorBank]:
    return {name: AnchorBank(name, {}, torch.zeros(0, anchor.dim)) for name in wanted}


def _embed_banks(
    anchor: OpenAnchor, wanted: Wanted, on_progress: OnProgress
) -> dict[str, AnchorBank]:
    banks = {}
    for modality, items in wanted.items():

        def report(done: int, total: int, modality: str = modality) -> None:
            on_progress(f"anchor embeddings of {modality}", done, total)

        if items:
            vectors = embed_together(anchor, modality, list(items.values()), report)
        else:
            vectors = torch.zeros(0, anchor.dim)
        rows = {key: row for row, key in enumerate(items)}
        banks[modality] = AnchorBank(modality, rows, vectors)
    return banks
