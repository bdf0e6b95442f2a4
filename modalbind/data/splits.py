"""Which pairs train, select and test; a split never cuts through a group.

Does not read samples. The held-out groups depend on the groups' names alone, so every seed of a
sweep tests on the same samples.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalbind.data.manifest import read_rows
from modalbind.errors import DataError, ManifestError
from modalbind.recipe.schema import DataSection
from modalbind.types import Pair


@dataclass(frozen=True, slots=True)
class PairSplits:
    """Pairs by use; no group is in two of them."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    test: tuple[Pair, ...]
    dropped: dict[str, int]


def split_pairs(pairs: Sequence[Pair], section: DataSection) -> PairSplits:
    """Divide pairs into training, validation and test.

    A named fold wins over the split column; with neither, `test_fraction` of the groups is held
    out. Validation comes from training groups, never from the test split.

    Raises:
        DataError: If a part that is needed is empty.
        ManifestError: If a group is in two splits, or the fold or split is unknown.
    """
    train, val, test = _divide(pairs, section)
    _check_groups({"train": train, "val": val, "test": test})
    if not val and section.val_fraction:
        held = pick_groups((pair.group for pair in train), section.val_fraction, "val")
        val = [pair for pair in train if pair.group in held]
        train = [pair for pair in train if pair.group not in held]
    kept, dropped = _filter_training(train, section)
    if not kept:
        raise DataError(
            f"training pairs asked for; none of {len(train)} rows is left ({dropped}); check "
            "data.train_languages, data.min_similarity, data.train_split"
        )
    return PairSplits(tuple(kept), tuple(val), tuple(test), dropped)


def take_test_pairs(pairs: Sequence[Pair], section: DataSection) -> PairSplits:
    """Return the test split alone, or all pairs if none is marked so; nothing is trained."""
    marked = [p for p in pairs if column_value(p, section.split_column) == section.test_split]
    return PairSplits((), (), tuple(marked or pairs), {})


def pick_groups(groups: Iterable[str], fraction: float, salt: str) -> set[str]:
    """Return `fraction` of the distinct groups (at least one), chosen by hash of their names."""
    ranked = sorted(
        set(groups), key=lambda group: hashlib.sha256(f"{salt}:{group}".encode()).digest()
    )
    return set(ranked[: max(1, math.floor(fraction * len(ranked)))])


def column_value(pair: Pair, column: str) -> str:
    """Return a pair's value of a column, be it one that we know or not."""
    known = {
        "split": pair.split,
        "fold": pair.fold,
        "group": pair.group,
        "language": pair.language,
        "positive_key": pair.positive_key,
    }
    return known[column] if column in known else pair.columns.get(column, "")


def list_folds(pairs: Sequence[Pair], section: DataSection) -> list[str]:
    """Return the folds that the data names, sorted."""
    return sorted({column_value(pair, section.fold_column) for pair in pairs} - {""})


def _divide(
    pairs: Sequence[Pair], section: DataSection
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    if section.test_fold is not None:
        return _divide_by_fold(pairs, section)
    by_split: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_split[column_value(pair, section.split_column)].append(pair)
    if set(by_split) == {""}:
        if section.split_column != "split":
            raise ManifestError(
                f"column '{section.split_column}' asked for; it is absent or empty; "
                "set data.split_column to one that holds the split"
            )
        held = pick_groups((pair.group for pair in pairs), section.test_fraction, "test")
        test = [pair for pair in pairs if pair.group in held]
        return [pair for pair in pairs if pair.group not in held], [], test
    for role, name in (("train", section.train_split), ("test", section.test_split)):
        if name not in by_split:
            raise ManifestError(
                f"split '{name}' asked for; column '{section.split_column}' has "
                f"{', '.join(sorted(by_split))}; set data.{role}_split to one of them"
            )
    val = [] if "val" in (section.train_split, section.test_split) else by_split.get("val", [])
    return by_split[section.train_split], val, by_split[section.test_split]


def _divide_by_fold(
    pairs: Sequence[Pair], section: DataSection
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    folds = list_folds(pairs, section)
    if section.test_fold not in folds:
        raise ManifestError(
            f"fold '{section.test_fold}' asked for; column '{section.fold_column}' has "
            f"{', '.join(folds) or 'no values'}; set data.test_fold to one of them"
        )
    test = [p for p in pairs if column_value(p, section.fold_column) == section.test_fold]
    train = [p for p in pairs if column_value(p, section.fold_column) != section.test_fold]
    return train, [], test


def _check_groups(parts: dict[str, list[Pair]]) -> None:
    home: dict[str, str] = {}
    for name, part in parts.items():
        for pair in part:
            if home.setdefault(pair.group, name) != name:
                raise ManifestError(
                    f"group '{pair.group}' asked to be in one split; it is in "
                    f"{home[pair.group]} and {name}; move its rows to one of them"
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
    text = pair.columns.get("similarity", "")
    try:
        return float(text)
    except ValueError:
        raise ManifestError(
            f"column 'similarity' asked for by data.min_similarity; sample '{pair.sample}' has "
            f"'{text}'; fill the column, or drop data.min_similarity"
        ) from None


def _read_excluded(files: Sequence[str]) -> set[str]:
    names: set[str] = set()
    for file in files:
        path = Path(file).expanduser()
        if path.suffix.lower() in (".csv", ".jsonl", ".parquet"):
            for row in read_rows(path):
                names.update(value for value in row.values() if value)
        elif path.is_file():
            names.update(line.strip() for line in path.read_text("utf-8").splitlines())
        else:
            raise ManifestError(f"data.exclude names {path}; no such file; check the path")
    return names - {""}
