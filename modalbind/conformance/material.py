"""What checks work on: a modality, its samples and features, as its quick start makes them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalbind.conformance.verdict import NotCheckedError, one_line
from modalbind.errors import ModalbindError
from modalbind.inputs import build_datasets
from modalbind.interfaces import Modality, ModalitySpec, Options, PairedDataset, Spec
from modalbind.plugin_manager import Plugins, build
from modalbind.recipe import Resolved, load_recipe, resolve
from modalbind.recipe.mistakes import check_model

SAMPLES = 4
"""Samples that checks of a modality and of what takes its features look at."""


class Material:
    """A modality with a handful of samples.

    Everything is built when first asked for; what goes wrong then is raised as it comes.
    """

    def __init__(
        self, plugins: Plugins, spec: ModalitySpec, changed: Mapping[str, Any] | None = None
    ) -> None:
        """Name the modality, and the options of it that differ from its quick start's."""
        self.plugins = plugins
        self.spec = spec
        self.changed = dict(changed or {})

    @cached_property
    def resolved(self) -> Resolved:
        """The quick start's recipe."""
        return resolve(load_recipe(self.spec.quickstart_recipe, (), self.plugins), self.plugins)

    @cached_property
    def options(self) -> Options:
        """Options of the modality: the quick start's, with what is changed."""
        if not self.changed:
            return self.resolved.modality_options
        given = load_recipe(self.spec.quickstart_recipe, (), self.plugins).modality.options
        return parse_options(self.spec, {**given, **self.changed})

    @cached_property
    def modality(self) -> Modality:
        """The modality."""
        return self.build_again()

    def build_again(self) -> Modality:
        """Return another instance of the modality."""
        return build(self.spec, self.options)  # type: ignore[no-any-return]

    @cached_property
    def dataset(self) -> PairedDataset:
        """The first data set of the quick start."""
        return build_datasets(self.resolved)[0][0]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of a few samples, from all over the data set."""
        every = list(dict.fromkeys(pair.sample for pair in self.dataset.pairs()))
        if not every:
            raise ValueError(f"{self.spec.quickstart_recipe}: its data set has no pairs")
        return spread(every, SAMPLES)

    def load(self, key: str) -> Any:
        """Return a sample, read or rendered anew."""
        return self.dataset.load_sample(key, self.modality)

    def samples(self) -> list[Any]:
        """Return the samples, read or rendered anew."""
        return [self.load(key) for key in self.keys]

    @cached_property
    def _features(self) -> list[Tensor]:
        return [self.modality.features(sample) for sample in self.samples()]

    def features(self) -> list[Tensor]:
        """Return a copy of the samples' features."""
        return deepcopy(self._features)


class Materials:
    """Material by modality, for what takes the features of any; each is made once."""

    def __init__(self, plugins: Plugins) -> None:
        """Keep where modalities are found."""
        self.plugins = plugins
        self._made: dict[str, Material] = {}

    def of(self, modality: str, changed: Mapping[str, Any]) -> Material:
        """Return the material of a modality under changed options; `*` takes one with a renderer.

        Raises:
            NotCheckedError: If nothing installed offers the modality.
        """
        place = f"{modality} {sorted(changed.items())!r}"
        if place not in self._made:
            self._made[place] = Material(self.plugins, self._find(modality), changed)
        return self._made[place]

    def ready(self, modality: str, changed: Mapping[str, Any]) -> Material:
        """Return material whose features are made; raises `NotCheckedError` if they cannot be."""
        found = self.of(modality, changed)
        try:
            found.features()
        except Exception as error:
            raise NotCheckedError(
                f"it needs features of modality '{found.spec.name}', which cannot be made: "
                f"{one_line(error)}"
            ) from error
        return found

    def _find(self, modality: str) -> ModalitySpec:
        if modality == "*":
            if not self.plugins.modalities:
                raise NotCheckedError("it is for any modality, and none is installed")
            return max(self.plugins.modalities, key=lambda spec: bool(spec.perceives))
        try:
            return self.plugins.modality(modality)
        except ModalbindError as error:
            raise NotCheckedError(f"it is for another modality: {error}") from error


def share_materials(around: Any) -> Materials:
    """Return the materials that all benches of a session share."""
    if "materials" not in around.shared:
        around.shared["materials"] = Materials(around.plugins)
    found: Materials = around.shared["materials"]
    return found


def spread(items: list[Any], count: int) -> tuple[Any, ...]:
    """Return at most `count` items, evenly from all over the list.

    Example:
        >>> spread([0, 1, 2, 3, 4, 5, 6], 3)
        (0, 3, 6)
    """
    if len(items) <= count:
        return tuple(items)
    return tuple(items[round(i * (len(items) - 1) / (count - 1))] for i in range(count))


def parse_options(spec: Spec, given: Mapping[str, Any]) -> Options:
    """Return options of an offer.

    Raises:
        NotCheckedError: If the model refuses them: what is left out may have no default.
    """
    options, mistakes = check_model(spec.options, dict(given), ("options",))
    if mistakes:
        found = "; ".join(str(mistake) for mistake in mistakes)
        raise NotCheckedError(f"its example options do not build it: {found}; give it an `example`")
    return options  # type: ignore[return-value]


def build_example(spec: Spec, *arguments: Any) -> Any:
    """Build an offer; what this machine lacks is no failure of the plugin.

    Raises:
        NotCheckedError: If a package, weights or data are missing, as a `ModalbindError` tells.
    """
    try:
        return build(spec, *arguments)
    except ModalbindError as error:
        raise NotCheckedError(f"it cannot be built here: {one_line(error)}") from error


def set_seeds(seed: int) -> None:
    """Set the global random states of torch, numpy and the standard library."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
