"""Files that appear whole or not at all, and are known to be what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modalbind import checkpoint
from modalbind.checkpoint import (
    Checkpoints,
    decode_tensors,
    encode_tensors,
    publish_folder,
    read_checked,
    read_json,
    read_lines,
    truncate_lines,
    write_file,
    write_json,
)
from modalbind.errors import CorruptFileError, RunError

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1.5, -2.25, 3e38], dtype=torch.bfloat16),
    "step": torch.tensor(7, dtype=torch.int64),
    "mask": torch.tensor([True, False]),
}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a
    )


def test_tensors_come_back_with_their_types() -> None:
    assert equal(decode_tensors(encode_tensors(TENSORS), Path("x")), TENSORS)


def test_bytes_depend_on_tensors_and_note_alone() -> None:
    data = encode_tensors(TENSORS, "note")
    strided = {n: TENSORS[n] for n in reversed(TENSORS)} | {"b": TENSORS["b"].T.contiguous().T}
    assert encode_tensors(strided, "note") == data
    assert encode_tensors(TENSORS) != data
    assert len(encode_tensors({"x": torch.zeros(100)[:2]})) < 200, "no hidden storage is written"


def test_tied_weights_are_written_for_each_name() -> None:
    weight = torch.arange(4.0)
    found = decode_tensors(encode_tensors({"x": weight, "y": weight, "z": weight[1:]}), Path("x"))
    assert torch.equal(found["x"], found["y"]) and torch.equal(found["z"], weight[1:])


def test_bytes_that_are_no_tensors_are_corrupt() -> None:
    with pytest.raises(CorruptFileError, match=r"towers.x asked for"):
        decode_tensors(b"nonsense", Path("towers.x"))


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "f", b"old")

    def crash(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(checkpoint.os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        write_file(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_json_is_written_whole_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert read_json(tmp_path / "x.json") == {"a": "ü", "b": 1}


def test_json_that_is_absent_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xff{")
    with pytest.raises(CorruptFileError, match="not JSON"):
        read_json(tmp_path / "x.json")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_folder_is_published_with_checksums(tmp_path: Path) -> None:
    publish_folder(tmp_path / "out", {"a": b"1", "b": b"2"})
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert read_checked(tmp_path / "out", "a") == b"1"
    publish_folder(tmp_path / "out", {"c": b"3"})
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"c", "checksums.json"}


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_crash_between_files_shows_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """Killed: not even the clean-up runs, so that what was staged stays behind."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, TENSORS, {"n": 1})
    written: list[Path] = []
    write = write_file

    def crash(path: Path, data: bytes) -> None:
        if len(written) == crash_at:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", crash)
        patch.setattr(checkpoint.shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, TENSORS, {"n": 2})
    assert list(tmp_path.glob(".step-2.*.tmp")), "as a killed process leaves it"
    assert checkpoints.list_steps() == [1]
    assert checkpoints.load_latest() is not None
    # Another process, so another name: what was left is cleaned away none the less.
    monkeypatch.setattr(checkpoint.os, "getpid", lambda: 4_000_000)
    checkpoints.save(2, TENSORS, {"n": 2})
    assert {p.name for p in tmp_path.iterdir()} == {"step-1", "step-2"}


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new", keep=2)
    assert checkpoints.load_latest() is None
    for step in (5, 10, 100):
        checkpoints.save(step, TENSORS, {"step": step})
    assert checkpoints.list_steps() == [10, 100]
    found = checkpoints.load_latest()
    assert found is not None and found[0] == 100 and found[2] == {"step": 100}
    assert equal(found[1], TENSORS)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("place", [0, -3])
def test_one_flipped_bit_is_found_and_the_previous_one_is_used(
    tmp_path: Path, name: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(step, TENSORS, {"step": step})
    if name == "checksums.json" and place == -3:
        place = -8  # inside a checksum, not in the white space at the end
    flip(tmp_path / "step-2" / name, place)
    found = checkpoints.load_latest()
    assert found is not None and found[0] == 1
    assert "step-2 is damaged" in caplog.text


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "checksums.json"])
def test_a_missing_file_is_damage_too(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, TENSORS, {})
    (tmp_path / "step-1" / name).unlink()
    assert checkpoints.load_latest() is None


def test_what_was_overtaken_never_pushes_out_what_is_new(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(20, TENSORS, {})
    flip(tmp_path / "step-20/tensors.safetensors", -1)
    checkpoints.save(4, TENSORS, {})
    assert checkpoints.list_steps() == [4]


def test_nan_in_the_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Checkpoints(tmp_path, keep=1).save(1, {}, {"score": float("nan")})


def test_half_written_lines_are_passed_over_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_lines(path, lambda record: True)
    assert not path.exists() and list(read_lines(path)) == []
    lines = [json.dumps({"step": n, "loss": n / 3}) for n in range(4)]
    path.write_text("\n".join(lines) + '\n{"step": 4, "lo')
    assert [record["step"] for record in read_lines(path)] == [0, 1, 2, 3]
    truncate_lines(path, lambda record: record["step"] < 3)
    assert path.read_text() == "\n".join(lines[:3]) + "\n"
