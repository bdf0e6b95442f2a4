"""What a generated scene is, which scenes exist, and in which split each one lies.

World version 1. Every scene of a split has a fixed number, so a key such as
`world:1/test/812` is enough to make it again; nothing is stored. No rendering happens here.

The hold-out: a (kind, count, size) combination belongs to one split, by its diagonal in the cube
of the three. A scene lies in the split that all its objects belong to; scenes that mix splits do
not exist. So no object of a test scene was ever seen in training with that count and size, for any
modality, while each pair of two of the three values was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from modalbind.errors import InputError

VERSION = 1
KINDS = ("bell", "drum", "trumpet", "flute", "bird", "frog", "bee", "dog", "cat", "clock")
COUNTS = (1, 2, 3, 4)
SIZES = ("small", "medium", "big")
POSITIONS = ("left", "centre", "right")
DISTANCES = ("near", "mid", "far")
WARMTHS = ("cold", "warm", "hot")
SPLITS = ("train", "val", "test")

ATTRIBUTES: dict[str, tuple[str | int, ...]] = {
    "kind": KINDS,
    "count": COUNTS,
    "size": SIZES,
    "position": POSITIONS,
    "distance": DISTANCES,
    "warmth": WARMTHS,
}
"""Every attribute and its values; a modality's `perceives` names some of them."""

# The diagonal of a combination, modulo 5: one fifth test, one fifth val, the rest train. Five is
# above the number of values of count and of size, so a line of the cube never lies in one split.
_SPLIT_OF_DIAGONAL = ("test", "val", "train", "train", "train")

# One scene in four shows a single kind; by their number alone it would be one in twenty.
_SCENES_PER_SINGLE = 4


@dataclass(frozen=True, slots=True, order=True)
class SceneObject:
    """`count` alike things of one kind.

    Attributes:
        kind: One of `KINDS`.
        count: 1 to 4.
        size: One of `SIZES`; a smaller thing also sounds higher.
    """

    kind: str
    count: int
    size: str


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """One or two groups of things, somewhere.

    Attributes:
        objects: One or two, of different kinds, in the order of `KINDS`. The order means nothing.
        position: Where the group stands, one of `POSITIONS`.
        distance: One of `DISTANCES`.
        warmth: How warm the things are, one of `WARMTHS`.
    """

    objects: tuple[SceneObject, ...]
    position: str
    distance: str
    warmth: str


def build_scenes(
    split: str, n: int, seed: int = 0, perceives: Sequence[str] = tuple(ATTRIBUTES)
) -> list[Scene]:
    """Draw `n` scenes of a split, no two alike to a modality that perceives these attributes.

    A longer draw begins with the shorter one of the same seed.

    Args:
        split: `train`, `val` or `test`.
        n: How many.
        seed: Another seed is another draw from the same split.
        perceives: Attributes in which the scenes must differ.

    Raises:
        InputError: If the split or an attribute is unknown, or the split has fewer such scenes.
    """
    check_perceives(perceives)
    singles = _distinct(_shuffled(split, 1, seed), perceives)
    doubles = _distinct(_shuffled(split, 2, seed), perceives)
    scenes: list[Scene] = []
    while len(scenes) < n:
        turn = (singles, doubles) if len(scenes) % _SCENES_PER_SINGLE == 0 else (doubles, singles)
        scene = next(turn[0], None) or next(turn[1], None)
        if scene is None:
            raise InputError(
                f"{n} scenes of split '{split}' that differ in {', '.join(perceives)} were asked "
                f"for; the world has {len(scenes)}; ask for fewer"
            )
        scenes.append(scene)
    return scenes


def perceived(scene: Scene, perceives: Sequence[str]) -> tuple[object, ...]:
    """Return what a modality can tell of a scene; equal for scenes that look alike to it."""
    objects = tuple(
        tuple(getattr(thing, name) for name in ("kind", "count", "size") if name in perceives)
        for thing in scene.objects
    )
    place = (name for name in ("position", "distance", "warmth") if name in perceives)
    return (tuple(sorted(objects)), *(getattr(scene, name) for name in place))


def scene_key(scene: Scene) -> str:
    """Return the key of a scene, `world:1/<split>/<number>`.

    Raises:
        InputError: If no split holds the scene.
    """
    split = split_of(scene)
    groups = _group_numbers(split).get(scene.objects) if split else None
    if groups is None:
        raise InputError(f"the key of {scene} was asked for; no split holds it; draw scenes")
    places = tuple(product(POSITIONS, DISTANCES, WARMTHS))
    place = places.index((scene.position, scene.distance, scene.warmth))
    return f"world:{VERSION}/{split}/{groups * len(places) + place}"


def scene_from_key(key: str) -> Scene:
    """Return the scene of a key.

    Raises:
        InputError: If the key is of another world version or names no scene.
    """
    prefix, _, number = key.rpartition("/")
    version, _, split = prefix.partition("/")
    if version == f"world:{VERSION}" and split in SPLITS and number.isdecimal():
        if int(number) < count_scenes(split):
            return _scene(split, int(number))
    raise InputError(
        f"scene '{key}' was asked for; it does not exist; keys look like world:{VERSION}/test/12"
    )


def count_scenes(split: str) -> int:
    """Return how many scenes a split has."""
    return len(_groups(split)) * len(POSITIONS) * len(DISTANCES) * len(WARMTHS)


def split_of(scene: Scene) -> str | None:
    """Return the split that all objects belong to, or None if there is none."""
    splits = {object_split(thing) for thing in scene.objects}
    return splits.pop() if len(splits) == 1 else None


def object_split(thing: SceneObject) -> str:
    """Return the one split that a combination of kind, count and size belongs to."""
    diagonal = KINDS.index(thing.kind) + COUNTS.index(thing.count) + SIZES.index(thing.size)
    return _SPLIT_OF_DIAGONAL[diagonal % len(_SPLIT_OF_DIAGONAL)]


def check_perceives(perceives: Sequence[str]) -> None:
    """Refuse attributes that the world does not have, and a list without `kind`.

    Raises:
        InputError: Naming what is wrong.
    """
    unknown = [name for name in perceives if name not in ATTRIBUTES]
    if unknown or "kind" not in perceives:
        raise InputError(
            f"attributes {', '.join(perceives) or 'none'} were asked for; "
            f"{', '.join(unknown) or 'kind'} is {'unknown' if unknown else 'missing'}; "
            f"name kind and any of {', '.join(ATTRIBUTES)}"
        )


@cache
def _groups(split: str) -> tuple[tuple[SceneObject, ...], ...]:
    """All groups of objects of a split, single kinds first."""
    if split not in SPLITS:
        raise InputError(f"split '{split}' was asked for; there are {', '.join(SPLITS)}; name one")
    things = [SceneObject(*values) for values in product(KINDS, COUNTS, SIZES)]
    things = [thing for thing in things if object_split(thing) == split]
    # Things are in the order of KINDS, so each pair is met once, first kind first.
    order = KINDS.index
    pairs = [(a, b) for a in things for b in things if order(a.kind) < order(b.kind)]
    return (*((thing,) for thing in things), *pairs)


@cache
def _group_numbers(split: str) -> dict[tuple[SceneObject, ...], int]:
    return {group: number for number, group in enumerate(_groups(split))}


def _scene(split: str, number: int) -> Scene:
    places = tuple(product(POSITIONS, DISTANCES, WARMTHS))
    group, place = divmod(number, len(places))
    return Scene(_groups(split)[group], *places[place])


def _shuffled(split: str, n_objects: int, seed: int) -> Iterator[Scene]:
    """Yield the split's scenes of one or two kinds, in an order fixed by hashes for all time."""
    groups = _groups(split)
    n_places = count_scenes(split) // len(groups)
    starts = (n_places * i for i, group in enumerate(groups) if len(group) == n_objects)
    wanted = [number for start in starts for number in range(start, start + n_places)]
    wanted.sort(key=lambda number: hashlib.blake2b(f"{seed}/{number}".encode()).digest())
    return (_scene(split, number) for number in wanted)


def _distinct(scenes: Iterator[Scene], perceives: Sequence[str]) -> Iterator[Scene]:
    seen = set()
    for scene in scenes:
        view = perceived(scene, perceives)
        if view not in seen:
            seen.add(view)
            yield scene
