"""Checks of an augmentation of any stage: it keeps the form, and draws from its generator alone."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from modalbind.conformance.material import (
    Material,
    build_example,
    parse_options,
    set_seeds,
    share_materials,
)
from modalbind.conformance.structure import are_equal, describe_form, find_difference
from modalbind.conformance.verdict import require
from modalbind.data.collate import build_side, pad_features
from modalbind.errors import ModalbindError
from modalbind.interfaces import AugmentationSpec
from modalbind.recipe.load import Resolved
from modalbind.types import PairBatch

SEEDS = (0, 1, 2)
DIM = 24

Augment = Callable[[Any, torch.Generator], Any]


class AugmentationBench:
    """An augmentation and values of its stage, as the quick start's data set gives them."""

    def __init__(self, around: Any, spec: AugmentationSpec) -> None:
        """Keep what to look at; nothing is built yet."""
        self.around = around
        self.spec = spec
        self._materials = share_materials(around)

    @cached_property
    def material(self) -> Material:
        """The modality and its samples."""
        return self._materials.ready(self.spec.modality, self.spec.example_modality)

    @cached_property
    def augment(self) -> Augment:
        """The augmentation."""
        modality = self.material.modality
        if self.around.options is not None:
            return build_example(  # type: ignore[no-any-return]
                self.spec, parse_options(self.spec, self.around.options), modality
            )
        options = self._quick_start_options() or parse_options(self.spec, self.spec.example)
        return build_example(self.spec, options, modality)  # type: ignore[no-any-return]

    def _quick_start_options(self) -> Any:
        if self.spec.example:
            return None
        try:
            resolved: Resolved = self.material.resolved
        except ModalbindError:
            return None
        chosen = {spec.name: options for spec, options in resolved.augmentations}
        return chosen.get(self.spec.name)

    def values(self) -> list[Any]:
        """Return fresh values of the stage: samples, features or one batch."""
        if self.spec.stage == "sample":
            return self.material.samples()
        features = self.material.features()
        if self.spec.stage == "features":
            return list(features)
        padded, mask = pad_features(features, self.material.modality.is_padded)
        generator = torch.Generator().manual_seed(3)
        anchors = F.normalize(torch.randn(len(features), DIM, generator=generator), dim=1)
        keys = list(self.material.keys)
        side = build_side("text", range(len(keys)), keys, anchors, 1.0)
        return [PairBatch(padded, mask, (side,), tuple(keys))]

    def run(self, value: Any, seed: int) -> Any:
        """Augment a value with a generator seeded anew."""
        return self.augment(value, torch.Generator().manual_seed(seed))

    @property
    def where(self) -> Any:
        """The place to look at."""
        kind = type(self.augment)
        is_function = getattr(kind, "__module__", "") == "builtins"
        return self.augment if is_function else getattr(kind, "__call__", kind)  # noqa: B004


def check_builds(bench: AugmentationBench) -> None:
    """Build it."""
    require(callable(bench.augment), f"a {type(bench.augment).__name__} cannot be called")


def check_keeps_form(bench: AugmentationBench) -> None:
    """Compare types, dtypes and axes of what goes in and what comes out."""
    for value in bench.values():
        before = describe_form(value)
        for seed in SEEDS:
            found = bench.run(deepcopy(value), seed)
            after = describe_form(found)
            changed = [p for p in dict.fromkeys([*before, *after]) if before.get(p) != after.get(p)]
            if changed:
                path = changed[0]
                require(
                    False,
                    f"{path.strip('.()') or 'the value'} goes in as {before.get(path)} and comes "
                    f"out as {after.get(path)}",
                    bench.where,
                )
            _require_shapes(bench, value, found)


def _require_shapes(bench: AugmentationBench, value: Any, found: Any) -> None:
    """Features keep all axes but time; a batch keeps all, and whose targets add up."""
    if bench.spec.stage == "features":
        first = 1 if bench.material.modality.is_padded else 0
        same = value.shape[first:] == found.shape[first:] and found.numel() > 0
        require(same, f"{tuple(value.shape)} becomes {tuple(found.shape)}", bench.where)
    elif bench.spec.stage == "batch":
        same = value.features.shape == found.features.shape
        require(
            same,
            f"features {tuple(value.features.shape)} become {tuple(found.features.shape)}",
            bench.where,
        )
        if value.valid_mask is not None:
            same = value.valid_mask.shape == found.valid_mask.shape
            require(same, "the valid mask changes its shape", bench.where)
        require(len(found.samples) == len(found.features), "rows lose their keys", bench.where)
        for side in found.sides:
            sums = side.positives.sum(dim=1)
            is_whole = bool(((sums - 1).abs() < 1e-3).logical_or(sums == 0).all())
            require(is_whole, "rows of positives do not sum to one", bench.where)


def check_seeded(bench: AugmentationBench) -> None:
    """Augment under different global seeds, with the same generator; look at the global state."""
    for value in bench.values():
        for seed in SEEDS:
            set_seeds(seed + 1)
            before = _global_state()
            first = bench.run(deepcopy(value), seed)
            require(
                are_equal(before, _global_state()),
                "it draws from a global random state",
                bench.where,
            )
            set_seeds(seed + 100)
            second = bench.run(deepcopy(value), seed)
            found = find_difference(first, second)
            require(
                not found,
                f"with the same generator twice, {found} comes out different",
                bench.where,
            )


def check_leaves_argument(bench: AugmentationBench) -> None:
    """Compare the argument with a copy made before."""
    for value in bench.values():
        before = deepcopy(value)
        for seed in SEEDS:
            bench.run(value, seed)
            found = find_difference(before, value)
            require(not found, f"it changes {found} of its argument", bench.where)


def check_finite(bench: AugmentationBench) -> None:
    """Make features of what comes out."""
    modality = bench.material.modality
    for value in bench.values():
        for seed in SEEDS:
            found = bench.run(deepcopy(value), seed)
            if bench.spec.stage == "batch":
                features = found.features
            elif bench.spec.stage == "sample":
                features = modality.features(found)
            else:
                features = found
            finite = bool(torch.isfinite(features).all())
            require(finite, "features not finite come out", bench.where)


def _global_state() -> list[Any]:
    import random

    name, keys, *rest = np.random.get_state()
    return [torch.get_rng_state(), keys, list(map(str, rest)), str(random.getstate()), str(name)]
