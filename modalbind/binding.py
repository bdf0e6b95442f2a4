"""Several towers in their common anchor space: every pair of modalities never trained together.

The test items are ones that all runs can tell apart: pairs that the user names, scenes of the
generated world, or the runs' own test items joined by positive key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from modalbind.cost import CostMeter
from modalbind.data.options import WorldOptions
from modalbind.data.samples import Sample
from modalbind.errors import DataError, RunError
from modalbind.evaluation.pools import (
    UNIMODAL_LANGUAGE,
    Pool,
    PoolPlan,
    TestPlan,
    build_pool,
    name_group,
    plan_test,
    split_by_language,
)
from modalbind.evaluation.protocol import Protocol, SumRow
from modalbind.measure import embed_as_tested, score_by_language
from modalbind.pipeline import FinishedRun, change_data, open_changed
from modalbind.plugin_manager import load_plugins
from modalbind.progress import Progress
from modalbind.recipe import Recipe, resolve
from modalbind.recipe.schema import Choice
from modalbind.report import RunReport, write_report
from modalbind.reporting import Measured, build_bound_report
from modalbind.run import AlignedSpace, find_run
from modalbind.rundir import RunDirectory
from modalbind.world import Scene, caption, scene_from_key, scene_key

WORLD = "world"
"""Kind of data set whose scenes every modality can render."""


def evaluate_together(
    runs: Sequence[Path],
    *,
    data: Path | None = None,
    root: Path | None = None,
    out: Path | None = None,
    console: Console | None = None,
) -> RunReport:
    """Bind several runs to their common anchor space, and score every pair of modalities.

    Args:
        runs: Run directories, each of another modality, all bound to one anchor space.
        data: Manifest with a column for each modality; rows may lack some. Default: scenes of the
            generated world if all runs were trained on it, drawn so that they differ in what
            every modality senses; else the runs' own test samples, joined by positive key.
        root: Folder of the manifest's paths; default: the manifest's.
        out: Folder to write the report to; made if missing.
        console: Where progress is shown.

    Raises:
        AnchorMismatchError: If two are bound to different anchor spaces; names both fingerprints.
        RunError: If one is no finished run, or two bring the same modality.
        DataError: If no two of them have test items in common.
    """
    paths = [find_run(run) for run in runs]
    AlignedSpace(paths)  # refuses what cannot be bound before any data is read
    directories = [RunDirectory(path) for path in paths]
    for directory in directories:
        directory.check_trained()
    progress, meter = Progress(console), CostMeter()
    with meter:
        bound = _open_members(directories, data, root, progress)
        measured = bound.measure()
        report = build_bound_report(
            paths, [member.found.inputs for member in bound.members], measured, meter
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    return report


@dataclass(frozen=True, slots=True)
class _Member:
    """One run among several.

    Attributes:
        found: The run.
        samples: Its test samples; `source` is unique over all members, unless they share the data.
        offset: Added to its own sources.
    """

    found: FinishedRun
    samples: tuple[Sample, ...]
    offset: int

    @property
    def modality(self) -> str:
        return self.found.resolved.modality.name

    def choose_pools(self, pools: Sequence[Pool]) -> list[Pool]:
        """Return the anchor's pools that the run itself is tested on."""
        languages = self.found.rules.section.languages
        return [
            pool
            for pool in pools
            if pool.modality != "text" or not languages or pool.language in languages
        ]

    def embed(self, samples: Iterable[Any]) -> Tensor:
        """Embed what its modality has read or rendered, `(n, dim)`."""
        found = self.found
        return embed_as_tested(found.resolved, found.inputs, found.tower, samples)


@dataclass(frozen=True, slots=True)
class _Bound:
    """All members, and the plan of the test that they have in common."""

    members: tuple[_Member, ...]
    plan: TestPlan
    is_world: bool

    @property
    def rules(self) -> Protocol:
        return self.members[0].found.rules

    def measure(self) -> Measured:
        """Score each tower against the anchor's modalities, and each pair of towers."""
        anchor_pools = self._embed_anchor_pools()
        languages = {name for m in self.members for name in m.found.rules.trained_languages}
        measured = Measured(trained_languages=languages)
        pools: list[Pool] = []
        by_language: list[list[Pool]] = []
        start = 0
        for member in self.members:
            labels = self.plan.sample_labels[start : start + len(member.samples)]
            start += len(member.samples)
            pool = self._embed_member(member, labels)
            pools.append(pool)
            by_language.append(split_by_language(pool, [s.language for s in member.samples]))
            measured.retrieval += score_by_language(
                member.found.rules, pool, member.samples, member.choose_pools(anchor_pools)
            )
            measured.zero_shot += member.found.rules.score_classes(
                pool, member.found.inputs.class_sets
            )
            measured.gap += member.found.rules.score_gaps(pool, anchor_pools)
        # A tower of texts has the name of the anchor's side, which others were trained on.
        untrained = replace(self.rules, paired=frozenset())
        for first, second in combinations(by_language, 2):
            for part in first:
                measured.bound += untrained.score_samples(part, second)
        for one, other in combinations(pools, 2):
            measured.gap += self.rules.score_gaps(one, [other])
        measured.reference = self.rules.score_anchor(anchor_pools)
        if self.is_world:
            measured.sums = self._score_sums()
        return measured

    def _embed_anchor_pools(self) -> list[Pool]:
        """Look each item up in the first member that has it."""
        found = _list_embedded(self.members)
        return [
            build_pool(pool, torch.stack([found[pool.modality, key] for key in pool.keys]))
            for pool in self.plan.pools
        ]

    def _embed_member(self, member: _Member, labels: Sequence[int]) -> Pool:
        inputs = member.found.inputs
        embeddings = member.embed(inputs.load_all(inputs.data.test))
        return Pool(
            member.modality,
            UNIMODAL_LANGUAGE,
            embeddings,
            torch.tensor(labels, dtype=torch.int64),
            tuple(name_group(sample) for sample in member.samples),
            tuple((sample.source, sample.key) for sample in member.samples),
        )

    def _score_sums(self) -> list[SumRow]:
        """Ask for scenes of two kinds of things by one kind in each of two modalities."""
        first = self.members[0].found.inputs
        dataset: Any = first.data.store.datasets[0]
        scenes = [scene_from_key(sample.key) for sample in first.data.test]

        def embed_anchor(modality: str, key_of: Callable[[Scene], str]) -> Embedder:
            return lambda found: first.anchor.embed(
                modality, [dataset.anchor_item(modality, key_of(scene), "en") for scene in found]
            )

        embedders: dict[str, Embedder] = {
            "text": embed_anchor("text", lambda scene: caption(scene, "en", dataset.perceives)),
            "image": embed_anchor("image", scene_key),
        }
        for member in self.members:
            if not member.found.resolved.modality.is_text:  # the anchor's text stands for texts
                embedders[member.modality] = _embed_scenes(member)
        return score_world_sums(embedders, scenes, self.rules)


Embedder = Callable[[Sequence[Scene]], Tensor]
"""Scenes to unit-norm embeddings `(n, dim)` of one modality."""


def _embed_scenes(member: _Member) -> Embedder:
    dataset = member.found.inputs.data.store.datasets[0]
    modality = member.found.inputs.modality
    return lambda scenes: member.embed(
        dataset.load_sample(scene_key(scene), modality) for scene in scenes
    )


def score_world_sums(
    embedders: Mapping[str, Embedder], scenes: Sequence[Scene], rules: Protocol
) -> list[SumRow]:
    """Score embedding arithmetic on scenes that show two kinds of things.

    A query is one kind alone in one modality plus the other kind alone in another; what it asks
    for is the picture of the scene that has both, among the pictures of all scenes. Which
    modality shows which kind is asked both ways.

    Args:
        embedders: By modality; `text` and `image` are the anchor's own.
        scenes: The pool; those of one kind are there to be mistaken.
        rules: Resamples, seed and split.
    """
    asked = [number for number, scene in enumerate(scenes) if len(scene.objects) == 2]
    parts = [replace(scenes[n], objects=(thing,)) for n in asked for thing in scenes[n].objects]
    pictures = embedders["image"](scenes)
    embedded = {modality: embed(parts) for modality, embed in embedders.items()}
    labels = torch.tensor(asked).repeat_interleave(2)
    other = torch.arange(len(parts)).view(-1, 2).flip(1).reshape(-1)  # the scene's other part
    rows = []
    for first, second in combinations(sorted(embedded, key=_new_first), 2):
        row = rules.score_sum(
            (first, second),
            (embedded[first], embedded[second][other]),
            ("image", pictures),
            (labels, torch.arange(len(scenes))),
        )
        rows.append(row)
    return rows


def _new_first(modality: str) -> tuple[bool, str]:
    return modality in ("text", "image"), modality


def _open_members(
    directories: Sequence[RunDirectory], data: Path | None, root: Path | None, progress: Progress
) -> _Bound:
    recipes = [directory.read_recipe() for directory in directories]
    for directory, recipe in zip(directories, recipes, strict=True):
        if recipe.evaluation.calibration is not None:
            raise RunError(
                f"binding {directory.path} asked for; its test is calibrated apart from the "
                "others'; calibrate the anchor instead (anchor.calibration), or evaluate it alone"
            )
    is_world = data is None and all(_is_of_world(recipe) for recipe in recipes)
    shares = is_world or data is not None
    if data is not None:
        recipes = [change_data(recipe, data, root, skip_empty=True) for recipe in recipes]
    elif is_world:
        recipes = _draw_common_scenes(recipes)
    members: list[_Member] = []
    offset = 0
    for directory, recipe in zip(directories, recipes, strict=True):
        found = open_changed(directory, recipe, progress, tests_all=shares)
        samples = tuple(replace(s, source=s.source + offset) for s in found.inputs.data.test)
        members.append(_Member(found, samples, offset))
        offset += 0 if shares else len(found.inputs.data.store.datasets)
    links = [
        replace(link, source=link.source + member.offset)
        for member in members
        for link in member.found.inputs.links
    ]
    plan = plan_test([s for member in members for s in member.samples], links)
    plan = _keep_embedded(plan, members)
    bound = _Bound(tuple(members), plan, is_world)
    _check_in_common(bound)
    return bound


def _list_embedded(members: Sequence[_Member]) -> dict[tuple[str, Any], Tensor]:
    """Return the anchor embeddings that the members' tests have, each from the first that has."""
    found: dict[tuple[str, Any], Tensor] = {}
    for member in members:
        for modality, bank in member.found.inputs.banks.items():
            for key, row in bank.rows.items():
                if modality != "text":
                    key = (key[0] + member.offset, key[1])
                found.setdefault((modality, key), bank.embeddings[row])
    return found


def _keep_embedded(plan: TestPlan, members: Sequence[_Member]) -> TestPlan:
    """Leave out anchor items that no member tests on, such as texts in other languages."""
    found = _list_embedded(members)
    pools = []
    for pool in plan.pools:
        rows = [row for row, key in enumerate(pool.keys) if (pool.modality, key) in found]
        if rows:
            kept = PoolPlan(
                pool.modality,
                pool.language,
                tuple(pool.keys[row] for row in rows),
                tuple(pool.labels[row] for row in rows),
                tuple(pool.groups[row] for row in rows),
            )
            pools.append(kept)
    return TestPlan(plan.sample_labels, tuple(pools))


def _is_of_world(recipe: Recipe) -> bool:
    return [source.kind for source in recipe.data.sources] == [WORLD]


def _draw_common_scenes(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Let all runs be tested on the same scenes, which differ in what each modality senses."""
    plugins = load_plugins()
    resolved = [resolve(recipe, plugins) for recipe in recipes]
    worlds = [WorldOptions.model_validate(r.data.sources[0].options) for r in recipes]
    senses = [
        world.perceives or each.modality.perceives
        for world, each in zip(worlds, resolved, strict=True)
    ]
    common = [name for name in senses[0] if all(name in other for other in senses)]
    source = {
        "kind": WORLD,
        "train": 2,  # none is trained on; a draw has at least two
        "test": min(world.test for world in worlds),
        "seed": worlds[0].seed,
        "perceives": common,
    }
    choice = Choice.model_validate(source)
    return [
        recipe.model_copy(
            update={"data": recipe.data.model_copy(update={"sources": (choice,), "root": None})}
        )
        for recipe in recipes
    ]


def _check_in_common(bound: _Bound) -> None:
    """Refuse runs of which no two have a test item in common: there would be no pair to score."""
    labels, start = [], 0
    for member in bound.members:
        end = start + len(member.samples)
        labels.append(set(bound.plan.sample_labels[start:end]))
        start = end
    if not any(first & second for first, second in combinations(labels, 2)):
        names = [member.modality for member in bound.members]
        raise DataError(
            f"{' and '.join(names)} asked to be tested on one another; their test splits share no "
            f"positive key; name pairs with --data: a manifest with columns {', '.join(names)}"
        )
