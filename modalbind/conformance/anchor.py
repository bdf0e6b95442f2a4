"""Checks of a kind of anchor space: frozen, unit norm, blind to what else is in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from modalbind.conformance.material import (
    Material,
    build_example,
    parse_options,
    share_materials,
    spread,
)
from modalbind.conformance.verdict import ContractError, NotCheckedError, one_line, require
from modalbind.errors import AnchorError, ModalbindError
from modalbind.interfaces import AnchorSpace, AnchorSpec, Options
from modalbind.recipe.anchor_spec import parse_spec
from modalbind.types import AnchorItem

TOLERANCE = 1e-5
BATCH_TOLERANCE = 1e-4
"""Largest difference of an embedding's numbers between batches; large models round more."""
ITEMS = 5
TEXTS = ("a dog barks", "rain on a tin roof", "two red circles", "a door", "nobody speaks")
SIDE_PX = 64

Opening = tuple[str, str | None, Options]


class AnchorBench:
    """A kind of anchor space, opened as a quick start does, or from its example."""

    def __init__(self, around: Any, spec: AnchorSpec) -> None:
        """Keep what to look at; nothing is opened yet."""
        self.around = around
        self.spec = spec

    @cached_property
    def _quick_start(self) -> Material | None:
        """The material of the first of the plugin's modalities whose quick start opens it."""
        for modality in self.around.plugin.specs.get("modality", ()):
            material = share_materials(self.around).of(modality.name, {})
            try:
                if material.resolved.anchor == self.spec:
                    return material
            except ModalbindError:
                continue
        return None

    @cached_property
    def opening(self) -> Opening:
        """Source, tag and options."""
        if self._quick_start is not None and self.around.options is None:
            found = self._quick_start.resolved
            return found.anchor_source, found.anchor_tag, found.anchor_options
        given = self.spec.example if self.around.options is None else self.around.options
        if not self.spec.example_source:
            raise NotCheckedError(
                "no source is at hand that opens it; give its spec an `example_source`"
            )
        name = parse_spec(f"{self.spec.name}:{self.spec.example_source}")
        return name.source, name.tag, parse_options(self.spec, given)

    def open_again(self) -> AnchorSpace:
        """Open the space."""
        return build_example(self.spec, *self.opening)  # type: ignore[no-any-return]

    @cached_property
    def space(self) -> AnchorSpace:
        """The space."""
        return self.open_again()

    def items(self, modality: str) -> list[AnchorItem]:
        """Return a few items that it can embed."""
        if self._quick_start is not None:
            found = list(_items_of_pairs(self._quick_start, modality))
            if found:
                return found
        if self.space.is_table:
            raise NotCheckedError("it is a table of vectors, and no quick start knows its keys")
        if modality == "text":
            return [_text_item(text) for text in TEXTS]
        if modality == "image":
            return [_picture_item(number) for number in range(ITEMS)]
        raise NotCheckedError(f"there are no items of modality '{modality}' at hand")

    def method(self, name: str) -> Any:
        """Return a method, as the place to look at."""
        return getattr(type(self.space), name, type(self.space))


def check_builds(bench: AnchorBench) -> None:
    """Open it and look at its attributes."""
    space, where = bench.space, type(bench.space)
    require(isinstance(space.name, str) and space.name != "", "it has no name", where)
    require(isinstance(space.dim, int) and space.dim > 0, f"dim is {space.dim!r}", where)
    named = isinstance(space.modalities, tuple) and len(space.modalities) > 0
    require(named, f"modalities are {space.modalities!r}", where)
    require(isinstance(space.is_table, bool), "is_table is no bool", where)


def check_unit_norm(bench: AnchorBench) -> None:
    """Embed items of each modality."""
    where = bench.method("encode")
    for modality in bench.space.modalities:
        items = bench.items(modality)
        found = bench.space.encode(modality, items)
        wanted = (len(items), bench.space.dim)
        is_tensor = isinstance(found, Tensor) and tuple(found.shape) == wanted
        require(is_tensor, f"{modality}: {wanted} asked for; found {_form(found)}", where)
        right = found.dtype == torch.float32 and found.device.type == "cpu"
        require(right, f"{modality}: {found.dtype} on {found.device}", where)
        require(not found.requires_grad, f"{modality}: embeddings carry a gradient", where)
        norms = found.norm(dim=1)
        require(
            bool(((norms - 1).abs() <= TOLERANCE * 10).all()),
            f"{modality}: norms from {float(norms.min()):.4g} to {float(norms.max()):.4g}",
            where,
        )


def check_batch(bench: AnchorBench) -> None:
    """Embed items one by one, backwards."""
    for modality in bench.space.modalities:
        items = bench.items(modality)
        expected = bench.space.encode(modality, items)
        for row in reversed(range(len(items))):
            alone = bench.space.encode(modality, [items[row]])[0]
            apart = float((alone - expected[row]).abs().max())
            require(
                apart <= BATCH_TOLERANCE,
                f"{modality}: an item alone differs by {apart:.2g} from itself among others",
                bench.method("encode"),
            )


def check_fingerprint(bench: AnchorBench) -> None:
    """Take the fingerprint twice, with embedding between, and of the space opened again."""
    where = bench.method("compute_fingerprint")
    first = bench.space.compute_fingerprint()
    require(isinstance(first, str) and first != "", f"it is {first!r}, no text", where)
    for modality in bench.space.modalities:
        try:
            bench.space.encode(modality, bench.items(modality))
        except NotCheckedError:
            continue
    require(first == bench.space.compute_fingerprint(), "it differs the second time", where)
    again = bench.open_again().compute_fingerprint()
    require(first == again, "it differs when the space is opened again", where)


def check_refuses(bench: AnchorBench) -> None:
    """Ask for a modality that it does not hold."""
    where = bench.method("encode")
    try:
        bench.space.encode("no-such-modality", [_text_item("nothing")])
    except AnchorError:
        return
    except Exception as error:
        raise ContractError(f"AnchorError asked for; {one_line(error)}", where) from error
    raise ContractError("AnchorError asked for; embeddings came back", where)


def _items_of_pairs(material: Material, modality: str) -> Iterator[AnchorItem]:
    keys: dict[tuple[str, str | None], None] = {}
    for pair in material.dataset.pairs():
        if modality == "text" and pair.text is not None:
            keys[pair.text, pair.language] = None
        elif modality == "image" and pair.image is not None:
            keys[pair.image, None] = None
    for key, language in spread(list(keys), ITEMS):
        yield material.dataset.anchor_item(modality, key, language)


def _text_item(text: str) -> AnchorItem:
    return AnchorItem(text, hashlib.sha256(text.encode()).digest(), partial(str, text), "en")


def _picture_item(number: int) -> AnchorItem:
    picture = Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX)).rotate(60 * number)
    picture = picture.convert("RGB")
    digest = hashlib.sha256(picture.tobytes()).digest()
    return AnchorItem(f"made-up-{number}.png", digest, picture.copy)


def _form(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
