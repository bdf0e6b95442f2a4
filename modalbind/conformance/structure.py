"""Compares and changes values of unknown types: what samples and batches are, only plugins know."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

Leaf = tuple[Any, ...]


def flatten(value: Any, path: str = "", seen: frozenset[int] = frozenset()) -> dict[str, Leaf]:
    """Return the leaves of a value by path, each as something that can be compared.

    Arrays become `(type, dtype, shape, bytes)`; objects are entered by their fields.
    """
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        plain = plain.float() if plain.dtype == torch.bfloat16 else plain
        return {path: ("Tensor", str(value.dtype), tuple(plain.shape), plain.numpy().tobytes())}
    if is_array(value):
        array = np.asarray(value)
        return {path: (type(value).__name__, str(array.dtype), array.shape, array.tobytes())}
    if isinstance(value, float) and math.isnan(value):
        return {path: ("float", "nan")}
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return {path: (type(value).__name__, value)}
    if id(value) in seen:
        return {path: ("again",)}
    found: dict[str, Leaf] = {f"{path}()": (type(value).__name__,)}
    for name, part in _parts(value):
        found |= flatten(part, f"{path}.{name}", seen | {id(value)})
    return found


def is_array(value: Any) -> bool:
    """Say whether a value is an array or a picture, or a number of numpy."""
    return hasattr(value, "__array_interface__") or isinstance(value, np.generic)


def are_equal(first: Any, second: Any) -> bool:
    """Say whether two values agree to the last bit."""
    return flatten(first) == flatten(second)


def find_difference(first: Any, second: Any) -> str:
    """Return the path of the first leaf in which two values differ, or ''."""
    one, other = flatten(first), flatten(second)
    for path in dict.fromkeys([*one, *other]):
        if one.get(path) != other.get(path):
            return path.strip(".") or "the value"
    return ""


def describe_form(value: Any) -> dict[str, Leaf]:
    """Return what augmentations keep: types, dtypes and numbers of axes, by path.

    Lengths of lists, like lengths of axes, are no form.
    """
    form: dict[str, Leaf] = {}
    for path, leaf in flatten(value).items():
        if len(leaf) == 4:
            kind, dtype, shape, _ = leaf
            form[path] = (kind, dtype, len(shape))
        else:
            form[path] = leaf[:1]
    return {path: leaf for path, leaf in form.items() if not _is_row(path)}


def _is_row(path: str) -> bool:
    """Say whether a path leads to a later element of a list: the first stands for all."""
    return any(part.isdigit() and part != "0" for part in path.replace("()", "").split("."))


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((str(index), part) for index, part in enumerate(value))
    else:
        for name in _fields(value):
            yield name, getattr(value, name, None)


def _fields(value: Any) -> list[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) or ()]
    return [*getattr(value, "__dict__", {}), *slots]


Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def change_arrays(value: Any, change: Change) -> Any:
    """Return a copy of a value with each array in it changed, lists of numbers included.

    Objects are put together again by their own constructors where they are dataclasses, so that
    what they refuse is refused.
    """
    if isinstance(value, torch.Tensor):
        return torch.from_numpy(np.array(change(value.detach().cpu().numpy())))
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, Image.Image):
        return Image.fromarray(change(np.asarray(value)))
    if isinstance(value, list | tuple) and _is_numeric(value):
        changed = change(np.asarray(value)).tolist()
        return tuple(changed) if isinstance(value, tuple) else changed
    return _map_parts(value, lambda part: change_arrays(part, change))


def change_numbers(value: Any, factor: float) -> Any:
    """Return a copy of a value with each single number in it multiplied, arrays left alone."""
    if isinstance(value, bool) or isinstance(value, list | tuple) or is_array(value):
        return value
    if isinstance(value, int | float):
        return type(value)(value * factor)
    if isinstance(value, torch.Tensor):
        return value
    return _map_parts(value, lambda part: change_numbers(part, factor))


def _is_numeric(value: list[Any] | tuple[Any, ...]) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:  # of ragged lists
        return False
    return array.size > 0 and array.dtype.kind in "fiu"


def _map_parts(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: change(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if isinstance(value, list | tuple):
        return type(value)(map(change, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        initial = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(
            value, **{name: change(getattr(value, name)) for name in initial}
        )
    if hasattr(value, "__dict__") and not isinstance(value, type):
        copied = copy.copy(value)
        for name, part in vars(value).items():
            object.__setattr__(copied, name, change(part))
        return copied
    return value
