"""A frozen space that is only a table of vectors by key, from any source.

The space is what its tables say it is: name, dim, normalisation. Tables of one space combine.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.anchors.fingerprint import hash_fields, hash_weights
from modalbind.anchors.frozen import check_modality
from modalbind.anchors.options import PrecomputedOptions
from modalbind.anchors.spec import split_files
from modalbind.anchors.tables import Table, read_table
from modalbind.errors import AnchorError, AnchorMismatchError
from modalbind.types import AnchorItem

AGREEMENT = 1e-3
_NEAREST_POOL = 5000


def build(source: str, tag: str | None, options: PrecomputedOptions) -> PrecomputedSpace:
    """Read the tables of one space.

    Args:
        source: `FILE[,FILE...]`, each npz, Parquet or safetensors as `tables.py` says.
        tag: None; a table has no tag.
        options: See `PrecomputedOptions`.

    Raises:
        AnchorError: If a file cannot be read, or a key that repeats has two vectors.
        AnchorMismatchError: If the tables are of different spaces.
    """
    if tag is not None:
        raise AnchorError(
            f"asked for precomputed:{source}@{tag}; a table has no tag; remove '@{tag}'"
        )
    return PrecomputedSpace([read_table(path) for path in split_files(source)], options)


class _Rows:
    """The vectors of one modality over all tables, found by key and language.

    Args:
        modality: Which.
        tables: That have it, in the order given.
        centre: Whether to subtract the mean.
    """

    def __init__(self, modality: str, tables: Sequence[Table], centre: bool) -> None:
        self.modality = modality
        self._files = [table.path for table in tables]
        columns = [table.columns[modality] for table in tables]
        self._languages = [language for column in columns for language in column.languages]
        self._file_of = np.repeat(np.arange(len(tables)), [len(column.keys) for column in columns])
        # float16 has lost the unit norm that it was written with
        vectors = torch.cat([torch.from_numpy(c.vectors.astype(np.float32)) for c in columns])
        self.vectors = F.normalize(vectors, dim=-1)
        self.rows: dict[str, list[int]] = {}
        for row, key in enumerate(key for column in columns for key in column.keys):
            self._add(key, row)
        if centre:
            kept = torch.tensor([row for rows in self.rows.values() for row in rows])
            mean = self.vectors[kept].mean(dim=0)
            self.vectors = F.normalize(self.vectors - mean, dim=-1)

    def _add(self, key: str, row: int) -> None:
        known = self.rows.setdefault(key, [])
        same = [other for other in known if self._languages[other] == self._languages[row]]
        if not same:
            known.append(row)
        elif not self._agree([same[0], row]):
            first, second = (self._files[self._file_of[each]] for each in (same[0], row))
            raise AnchorError(
                f"asked to combine tables; {self.modality} {key!r} has two vectors that differ by "
                f"more than {AGREEMENT:g}, in {first} and {second}; keep the right one"
            )

    def _agree(self, rows: list[int]) -> bool:
        chosen = self.vectors[rows]
        return float((chosen - chosen[0]).abs().max()) <= AGREEMENT

    def find(self, item: AnchorItem) -> int | None:
        """Return the row of an item, or None.

        Raises:
            AnchorError: If languages that the item does not tell apart have different vectors.
        """
        rows = self.rows.get(item.key)
        if rows is None:
            return None
        exact = [row for row in rows if self._languages[row] == item.language]
        if exact:
            return exact[0]
        if not self._agree(rows):
            languages = ", ".join(sorted(self._languages[row] for row in rows))
            raise AnchorError(
                f"asked for {self.modality} {item.key!r} in language {item.language!r}; the table "
                f"has different vectors for it in {languages}; name one of these"
            )
        return rows[0]

    def nearest(self, key: str) -> str | None:
        """Return the key that is most like a missing one, if any is like it."""
        likely = sorted(self.rows, key=lambda known: abs(len(known) - len(key)))[:_NEAREST_POOL]
        near = difflib.get_close_matches(key, likely, n=1)
        return near[0] if near else None


class PrecomputedSpace:
    """Tables of vectors as a frozen space; it has no weights and needs no cache.

    Args:
        tables: Of one space, at least one.
        options: See `PrecomputedOptions`.

    Raises:
        AnchorError: If there is no table, or a key that repeats has two vectors.
        AnchorMismatchError: If the tables are of different spaces.
    """

    is_table = True

    def __init__(self, tables: Sequence[Table], options: PrecomputedOptions) -> None:
        if not tables:
            raise AnchorError("asked for a precomputed anchor; no file is named; give FILE[,FILE]")
        self._check_same_space(tables)
        first = tables[0]
        self.name = first.space
        self.dim = first.dim
        self._is_normalised = first.is_normalised
        self._centre = options.centre
        modalities = sorted({modality for table in tables for modality in table.columns})
        self.modalities = tuple(modalities)
        self.content_hashes = {str(table.path): table.hash_content() for table in tables}
        self._rows = {
            name: _Rows(name, [t for t in tables if name in t.columns], options.centre)
            for name in modalities
        }
        self._live_hash = self._hash_live()

    @staticmethod
    def _check_same_space(tables: Sequence[Table]) -> None:
        first = tables[0]
        for table in tables[1:]:
            for what in ("space", "dim", "is_normalised"):
                one, other = getattr(first, what), getattr(table, what)
                if one != other:
                    raise AnchorMismatchError(
                        f"asked to combine {first.path} and {table.path}; their {what} differs: "
                        f"{one!r} and {other!r}; combine tables of one space"
                    )

    def compute_fingerprint(self) -> str:
        """Hash name, dim and normalisation; if centred, also the tables that gave the means.

        Raises:
            AnchorMismatchError: If the vectors in memory are not those that were read.
        """
        if self._hash_live() != self._live_hash:
            raise AnchorMismatchError(
                f"asked for the fingerprint of {self.name}; its vectors in memory have changed "
                "since they were read; start again, and report what ran in between"
            )
        means = sorted(self.content_hashes.values()) if self._centre else []
        return hash_fields(
            {
                "kind": "precomputed",
                "space": self.name,
                "dim": self.dim,
                "normalised": self._is_normalised,
                "centred": means,
            }
        )

    def _hash_live(self) -> str:
        return hash_weights({name: rows.vectors for name, rows in self._rows.items()})

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` by key; contents are never loaded.

        Raises:
            AnchorError: If the tables lack the modality or keys; names the first.
        """
        check_modality(self.name, modality, self.modalities)
        rows = self._rows[modality]
        found = [rows.find(item) for item in items]
        missing = {i.key: None for i, row in zip(items, found, strict=True) if row is None}
        if missing:
            first = next(iter(missing))
            near = rows.nearest(first)
            raise AnchorError(
                f"asked {self.name} for {len({item.key for item in items})} {modality} keys; "
                f"{len(missing)} are not in {', '.join(self.content_hashes)}, such as {first!r}"
                + (f" (nearest: {near!r})" if near else "")
                + "; add their vectors, or leave these rows out"
            )
        return rows.vectors[torch.tensor([row for row in found if row is not None]).long()]
