"""Embeds many inputs in blocks that are kept until all are done.

So several processes share the work, and what is stopped goes on: a block is computed anew only if
its inputs, or what embeds them, have changed since. Blocks lie beside the file that they become.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modalbind.checkpoint import decode_tensors, encode_tensors, publish_folder, read_checked
from modalbind.errors import CorruptFileError, RunError
from modalbind.processes import join
from modalbind.run import AlignedSpace

BLOCK = 1024
"""Inputs of a block, at most; what a kill may cost."""
_ROWS, _ADDRESS = "rows.safetensors", "address"


@dataclass(frozen=True, slots=True)
class Rows:
    """What became of the inputs.

    Attributes:
        keys: The input of each row.
        vectors: Unit norm, float32 `(rows, dim)`.
        times: `start_s` and `end_s` of each row, for windows; else None.
    """

    keys: Sequence[str]
    vectors: Tensor
    times: Mapping[str, Sequence[float]] | None


class Blocks:
    """The blocks of one list of inputs.

    Args:
        space: Embeds them.
        modality: Of the inputs.
        inputs: Paths; texts for `text`.
        out: File that the rows are for.
        windows: One row per window of a long sample.
    """

    def __init__(
        self, space: AlignedSpace, modality: str, inputs: Sequence[str], out: Path, windows: bool
    ) -> None:
        self._space, self._modality, self._windows = space, modality, windows
        self._folder = out.with_name(f".{out.name}.parts")
        size = min(BLOCK, -(-len(inputs) // join().count))
        self._blocks = [inputs[i : i + size] for i in range(0, len(inputs), size)]

    def compute(self) -> None:
        """Embed what is not there yet: in this process every so-manieth block, in all all.

        Raises:
            BrokenSampleError: If an input cannot be read; the blocks before it stay.
        """
        processes = join()
        for number in range(processes.rank, len(self._blocks), processes.count):
            block = self._blocks[number]
            address = self._address(block)
            if self._read_address(number) != address:
                content = encode_tensors(self._embed(block))
                files = {_ROWS: content, _ADDRESS: address.encode()}
                publish_folder(self._place(number), files)
        processes.meet()

    def collect(self) -> Rows:
        """Return all rows, in the order of the inputs.

        Raises:
            RunError: If a block is not there, as where processes have no folder in common.
            CorruptFileError: If one is damaged.
        """
        parts = [self._read(number) for number in range(len(self._blocks))]
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        keys = [
            block[owner]
            for block, part in zip(self._blocks, parts, strict=True)
            for owner in part["owner"].tolist()
        ]
        times = {name: rows[name].tolist() for name in ("start_s", "end_s")}
        return Rows(keys, rows["vectors"], times if self._windows else None)

    def remove(self) -> None:
        """Remove the blocks; their rows have been written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _embed(self, block: Sequence[str]) -> dict[str, Tensor]:
        if not self._windows:
            vectors = self._space.embed(self._modality, block)
            nothing = torch.zeros(len(block), dtype=torch.float64)
            owners = torch.arange(len(block))
            return {"vectors": vectors, "owner": owners, "start_s": nothing, "end_s": nothing}
        found = [
            (owner, *window)
            for owner, key in enumerate(block)
            for window in self._space.embed_windows(self._modality, key)
        ]
        return {
            "vectors": torch.stack([row[3] for row in found]),
            "owner": torch.tensor([row[0] for row in found]),
            "start_s": torch.tensor([row[1] for row in found], dtype=torch.float64),
            "end_s": torch.tensor([row[2] for row in found], dtype=torch.float64),
        }

    def _address(self, block: Sequence[str]) -> str:
        digest = hashlib.sha256(f"{self._space.identify(self._modality)} {self._windows}".encode())
        for key in block:
            digest.update(self._space.hash_input(self._modality, key))
        return digest.hexdigest()

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:08d}"

    def _read_address(self, number: int) -> str | None:
        with suppress(RunError, CorruptFileError):
            read_checked(self._place(number), _ROWS)
            return read_checked(self._place(number), _ADDRESS).decode()
        return None

    def _read(self, number: int) -> dict[str, Tensor]:
        place = self._place(number)
        return decode_tensors(read_checked(place, _ROWS), place)
