"""Which pairs train, select and test; a split never cuts through a group.

Does not read samples. The held-out groups depend on the groups' names alone, so every seed of a
sweep tests on the same samples.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modalbind.data.manifest import read_rows
from modalbind.data.samples import known_columns
from modalbind.errors import DataError, ManifestError
from modalbind.plugin_manager import nearest
from modalbind.recipe.schema import DataSection
from modalbind.types import Pair

logger = logging.getLogger(__name__)

USUAL_NAMES = {"valid": "val", "validation": "val", "dev": "val", "development": "val"}
"""What others call the split that is `val` by default."""


@dataclass(frozen=True, slots=True)
class PairSplits:
    """Pairs by use; no group is in two of them."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    dropped: dict[str, int]


def split_pairs(sources: Sequence[Sequence[Pair]], section: DataSection) -> list[PairSplits]:
    """Divide the pairs of all data sets into training, validation and test.

    A named fold wins over the split column; with neither, `test_fraction` of the groups is held
    out. One data set may have training rows alone, another test rows alone. Validation comes from
    training groups, never from the test split. What `data.exclude` names is taken out of training
    first, and then no group may be in two parts, whichever data set it comes from.

    Raises:
        DataError: If nothing is left to train on.
        ManifestError: If a group is in two splits, or the fold or split is unknown.
    """
    divide = _choose_division(sources, section)
    parts = [divide(pairs) for pairs in sources]
    filtered = [_filter_training(train, section) for train, _, _ in parts]
    for pairs, part, (_, dropped) in zip(sources, parts, filtered, strict=True):
        if other := len(pairs) - sum(map(len, part)):
            dropped["other_split"] = other
    train = [kept for kept, _ in filtered]
    val = [found for _, found, _ in parts]
    test = [found for _, _, found in parts]
    _check_groups({"train": train, "val": val, "test": test})
    if not any(val) and section.val_fraction:
        groups = (pair.group for kept in train for pair in kept)
        held = pick_groups(groups, section.val_fraction, "val")
        val = [[pair for pair in kept if pair.group in held] for kept in train]
        train = [[pair for pair in kept if pair.group not in held] for kept in train]
    splits = [
        PairSplits(tuple(a), tuple(b), tuple(c), dropped)
        for a, b, c, (_, dropped) in zip(train, val, test, filtered, strict=True)
    ]
    if not any(split.train for split in splits):
        dropped = sum((Counter(split.dropped) for split in splits), Counter[str]())
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
        raise DataError(
            f"training pairs asked for; none is left (dropped: {reasons}); "
            "check data.train_languages, data.min_similarity, data.train_split"
        )
    return splits


def take_test_pairs(sources: Sequence[Sequence[Pair]], section: DataSection) -> list[PairSplits]:
    """Return the test split alone, or all pairs if none is marked so; nothing is trained."""
    marked = [
        [p for p in pairs if column_value(p, section.split_column) == section.test_split]
        for pairs in sources
    ]
    chosen = marked if any(marked) else sources
    named = {column_value(p, section.split_column) for pairs in sources for p in pairs} - {""}
    if named and not any(marked):
        logger.warning(
            "split '%s' asked for; column '%s' has %s; all rows are tested",
            section.test_split,
            section.split_column,
            ", ".join(sorted(named)),
        )
    return [PairSplits((), (), tuple(pairs), {}) for pairs in chosen]


def pick_groups(groups: Iterable[str], fraction: float, salt: str) -> set[str]:
    """Return `fraction` of the distinct groups (at least one), chosen by hash of their names."""
    ranked = sorted(
        set(groups), key=lambda group: hashlib.sha256(f"{salt}:{group}".encode()).digest()
    )
    return set(ranked[: max(1, math.floor(fraction * len(ranked)))])


def column_value(pair: Pair, column: str) -> str:
    """Return a pair's value of a column, be it one that we know or not."""
    known = known_columns(pair)
    return known[column] if column in known else pair.columns.get(column, "")


def list_folds(pairs: Sequence[Pair], section: DataSection) -> list[str]:
    """Return the folds that the data names, sorted."""
    return sorted({column_value(pair, section.fold_column) for pair in pairs} - {""})


Parts = tuple[list[Pair], list[Pair], list[Pair]]
"""Training, validation, test."""


def _choose_division(
    sources: Sequence[Sequence[Pair]], section: DataSection
) -> Callable[[Sequence[Pair]], Parts]:
    """Find how this data is to be split, and refuse what it cannot be."""
    pairs = [pair for source in sources for pair in source]
    if section.test_fold is not None:
        _check_value("fold", section.test_fold, section.fold_column, pairs)
        return partial(_divide_by_fold, section=section)
    named = {column_value(pair, section.split_column) for pair in pairs} - {""}
    if named:
        if all(column_value(pair, section.split_column) for pair in pairs):
            _check_value("split", section.train_split, section.split_column, pairs)
        _check_value("split", section.test_split, section.split_column, pairs)
        _warn_of_others(pairs, section)
        return partial(_divide_by_split, section=section)
    if section.split_column != "split":
        raise ManifestError(
            f"column '{section.split_column}' asked for; it is absent or empty; "
            "set data.split_column to one that holds the split"
        )
    held = pick_groups((pair.group for pair in pairs), section.test_fraction, "test")
    return partial(_divide_by_group, held=held)


def _check_value(what: str, value: str, column: str, pairs: Sequence[Pair]) -> None:
    there = sorted({column_value(pair, column) for pair in pairs} - {""})
    if value not in there:
        near = next((name for name in there if _probable_name(name, [value]) == value), None)
        raise ManifestError(
            f"{what} '{value}' asked for; column '{column}' has {', '.join(there) or 'no values'}; "
            + (f"did you mean '{near}'? " if near else "")
            + "set data.train_split, data.test_split or data.test_fold to what it has"
        )


def _warn_of_others(pairs: Sequence[Pair], section: DataSection) -> None:
    """Name the values of the split column that take no part, and what they may have meant."""
    names = [section.train_split, section.val_split, section.test_split]
    counts = Counter(column_value(pair, section.split_column) for pair in pairs)
    found = []
    for value in sorted(counts.keys() - {"", *names}):
        name = _probable_name(value, names)
        meant = f", did you mean '{name}'?" if name else ""
        found.append(f"{counts[value]} say '{value}'{meant}")
    if found:
        logger.warning(
            "column '%s' asked for %s; rows that say something else are left out: %s",
            section.split_column,
            ", ".join(dict.fromkeys(names)),
            "; ".join(found),
        )


def _probable_name(value: str, names: Sequence[str]) -> str | None:
    """Return which of our names a value of the split column probably stands for."""
    plain = value.strip().lower()
    by_plain = {name.lower(): name for name in names}
    near = nearest(USUAL_NAMES.get(plain, plain), by_plain)
    return None if near is None else by_plain[near]


def _divide_by_fold(pairs: Sequence[Pair], section: DataSection) -> Parts:
    test = [p for p in pairs if column_value(p, section.fold_column) == section.test_fold]
    train = [p for p in pairs if column_value(p, section.fold_column) != section.test_fold]
    return train, [], test


def _divide_by_split(pairs: Sequence[Pair], section: DataSection) -> Parts:
    by_split: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        # A data set without splits, mixed with one that has a test split, is for training.
        by_split[column_value(pair, section.split_column) or section.train_split].append(pair)
    has_own_val = section.val_split not in (section.train_split, section.test_split)
    val = by_split[section.val_split] if has_own_val else []
    return by_split[section.train_split], val, by_split[section.test_split]


def _divide_by_group(pairs: Sequence[Pair], held: set[str]) -> Parts:
    test = [pair for pair in pairs if pair.group in held]
    return [pair for pair in pairs if pair.group not in held], [], test


def _check_groups(parts: dict[str, list[list[Pair]]]) -> None:
    home: dict[str, str] = {}
    for name, sources in parts.items():
        for group in {pair.group for pairs in sources for pair in pairs}:
            if home.setdefault(group, name) != name:
                raise ManifestError(
                    f"group '{group}' asked to be in one split; it is in {home[group]} and "
                    f"{name}; move its rows to one of them, or name it in data.exclude"
                )


def _filter_training(
    pairs: Sequence[Pair], section: DataSection
) -> tuple[list[Pair], dict[str, int]]:
    excluded = _read_excluded(section.exclude)
    kept: list[Pair] = []
    dropped: dict[str, int] = defaultdict(int)
    for pair in pairs:
        if pair.text is not None and pair.language not in section.train_languages:
            dropped["other_language"] += 1
        elif pair.sample in excluded or pair.group in excluded:
            dropped["excluded"] += 1
        elif section.min_similarity is not None and _similarity(pair) < section.min_similarity:
            dropped["low_similarity"] += 1
        else:
            kept.append(pair)
    return kept, dict(dropped)


def _similarity(pair: Pair) -> float:
    """Return a pair's similarity; a data set that has no such column is not filtered by it."""
    if "similarity" not in pair.columns:
        return math.inf
    text = pair.columns["similarity"]
    with suppress(ValueError):
        if not math.isnan(similarity := float(text)):
            return similarity
    raise ManifestError(
        f"column 'similarity' asked for by data.min_similarity; sample '{pair.sample}' has "
        f"'{text}'; fill the column, or drop data.min_similarity"
    )


def _read_excluded(files: Sequence[str]) -> set[str]:
    names: set[str] = set()
    for file in files:
        path = Path(file).expanduser()
        if path.suffix.lower() in (".csv", ".jsonl", ".parquet"):
            for row in read_rows(path):
                names.update(value for value in row.values() if value)
        elif path.is_file():
            names.update(line.strip() for line in path.read_text("utf-8-sig").splitlines())
        else:
            raise ManifestError(f"data.exclude names {path}; no such file; check the path")
    return names - {""}
