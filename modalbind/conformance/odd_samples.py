"""Samples as no file ought to give them, made from a real one: tiny, huge, not finite, foreign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from modalbind.conformance.structure import Change, are_equal, change_arrays, change_numbers
from modalbind.errors import ModalbindError

HUGE = 1e30
"""Factor on values: far beyond any unit, and within float32."""

Array = np.ndarray[Any, Any]


def _fill(number: float) -> Change:
    def change(array: Array) -> Array:
        return np.full_like(array, number) if array.dtype.kind == "f" else array

    return change


def _spoil_one(array: Array) -> Array:
    if array.dtype.kind != "f" or not array.size:
        return array
    changed = np.array(array)
    changed.flat[array.size // 2] = np.nan
    return changed


def _grow(array: Array) -> Array:
    return array * array.dtype.type(HUGE) if array.dtype.kind == "f" else array


def _shorten(length: int) -> Change:
    return lambda array: array[:length] if array.ndim else array


def _drop_axis(array: Array) -> Array:
    return array[0] if array.ndim and len(array) else array


_CHANGES: dict[str, Change] = {
    "all not a number": _fill(np.nan),
    "one value not a number": _spoil_one,
    "infinite": _fill(np.inf),
    "all zero": _fill(0.0),
    "huge": _grow,
    "of length one": _shorten(1),
    "of length zero": _shorten(0),
    "with one axis more": lambda array: array[None],
    "with one axis fewer": _drop_axis,
}
_FOREIGN = {"None": None, "a text": "text", "a number": 3.5, "a bare object": object()}


def make_odd_samples(sample: Any) -> Iterator[tuple[str, Any]]:
    """Yield `(what is odd, sample)`; what the sample's own type refuses to hold is left out."""
    for name, change in _CHANGES.items():
        yield from _try(f"a sample {name}", sample, lambda s, c=change: change_arrays(s, c))
    yield from _try("a sample with its numbers doubled", sample, lambda s: change_numbers(s, 2))
    for name, value in _FOREIGN.items():
        yield f"{name} instead of a sample", value


def _try(name: str, sample: Any, change: Any) -> Iterator[tuple[str, Any]]:
    try:
        changed = change(sample)
    except (ModalbindError, ArithmeticError, LookupError, TypeError, ValueError):
        return  # it is refused where it is made, before any code of the modality sees it
    if not are_equal(changed, sample):
        yield name, changed
