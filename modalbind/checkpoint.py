"""Files of a run that appear whole or not at all, and are known to be what was written.

A folder is staged beside its place, synced, given checksums and renamed. Tensors are safetensors,
everything else JSON; nothing is pickled. Knows no training and no modality.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from modalbind.errors import CorruptFileError, RunError

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
STEP_PREFIX = "step-"


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with staged.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; not-a-number is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_file(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: If the file is absent.
        CorruptFileError: If it is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path} asked for; no such file; name a folder that `modalbind align` has written"
        ) from None
    except ValueError as error:
        raise CorruptFileError(f"{path} asked for; it is not JSON ({error}); restore it") from None


def encode_tensors(tensors: Mapping[str, Tensor], note: str = "") -> bytes:
    """Return safetensors bytes that depend on the tensors and the note alone."""
    # Copies, because the format refuses tensors that share storage, such as tied weights.
    plain = {n: tensors[n].detach().cpu().contiguous().clone() for n in sorted(tensors)}
    # One key of metadata: the format does not fix the order of several.
    data: bytes = safetensors.torch.save(plain, {"modalbind": note} if note else None)
    return data


def publish_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files and their checksums appear at once."""
    staged = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        for name, data in files.items():
            write_file(staged / name, data)
        write_json(staged / CHECKSUMS, sums)
        _remove_folder(folder)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    _sync_folder(folder.parent)


def read_checked(folder: Path, name: str, sums: Mapping[str, str] | None = None) -> bytes:
    """Return a file's bytes after comparing them with their checksum.

    Raises:
        CorruptFileError: If the file is absent, has no checksum, or differs from it.
    """
    if sums is None:
        sums = read_json(folder / CHECKSUMS)
    path = folder / name
    if not isinstance(sums, Mapping):
        raise CorruptFileError(f"{path} asked for; its checksums are damaged; restore the folder")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptFileError(f"{path} asked for; {error.strerror}; restore it") from None
    if hashlib.sha256(data).hexdigest() != sums.get(name):
        raise CorruptFileError(
            f"{path} asked for; its bytes differ from their checksum; restore the file"
        )
    return data


def decode_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of safetensors bytes; `path` is for the message."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CorruptFileError(f"{path} asked for; {error}; restore the file") from None
    return tensors


class Checkpoints:
    """The `checkpoints/` folder of a run: `step-N/` with tensors and a JSON state."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Use `folder`; the last `keep` checkpoints stay."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Publish a checkpoint, then remove what is too old, half written or overtaken.

        A later step than this one is overtaken: it was damaged, or the run went on from before it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(state, sort_keys=True, allow_nan=False)
        publish_folder(
            self.folder / f"{STEP_PREFIX}{step}",
            {"tensors.safetensors": encode_tensors(tensors), "state.json": text.encode()},
        )
        steps = self.list_steps()
        kept = [other for other in steps if other <= step][-self.keep :]
        for old in set(steps) - set(kept):
            _remove_folder(self.folder / f"{STEP_PREFIX}{old}")
        for left in self.folder.glob(f".{STEP_PREFIX}*.tmp"):
            shutil.rmtree(left, ignore_errors=True)

    def list_steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending."""
        names = (path.name.removeprefix(STEP_PREFIX) for path in self.folder.glob("step-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def load_latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return `(step, tensors, state)` of the newest undamaged checkpoint, or None.

        A damaged one is named in a warning and passed over.
        """
        return self._first_readable(reversed(self.list_steps()))

    def _first_readable(self, steps: Any) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        for step in steps:
            folder = self.folder / f"{STEP_PREFIX}{step}"
            try:
                tensors = decode_tensors(read_checked(folder, "tensors.safetensors"), folder)
                return step, tensors, json.loads(read_checked(folder, "state.json"))
            except (CorruptFileError, RunError) as error:
                logger.warning("checkpoint step-%d is damaged and passed over: %s", step, error)
        return None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of a file, if there is one; a half-written line is passed over."""
    if not path.exists():
        return
    for line in path.read_text("utf-8").splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def truncate_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the JSON lines of a file that satisfy `keep`; half-written ones go."""
    if path.exists():
        kept = [json.dumps(record) for record in read_lines(path) if keep(record)]
        write_file(path, "".join(f"{line}\n" for line in kept).encode())


def _remove_folder(folder: Path) -> None:
    """Remove a folder if it is there; a crash leaves the whole of it or none of it in view."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")
    with suppress(FileNotFoundError):
        folder.rename(hidden)
        shutil.rmtree(hidden)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
