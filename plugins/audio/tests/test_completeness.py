from __future__ import annotations

import struct

import pytest
from modalbind_audio.completeness import _mpeg_frame_bytes, find_missing


def riff(claimed: int, there: int) -> bytes:
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    data = struct.pack("<4sI", b"data", claimed) + bytes(there)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(fmt) + len(data), b"WAVE") + fmt + data


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF])
def test_streamed_wav_passes(claimed, tmp_path):
    path = tmp_path / "stream.wav"
    path.write_bytes(riff(claimed, 320))
    assert find_missing(path) is None


def test_wav_names_both_sizes(tmp_path):
    path = tmp_path / "cut.wav"
    path.write_bytes(riff(640, 320))
    assert find_missing(path) == "data chunk says 640 bytes, 320 are there"
    path.write_bytes(riff(640, 320)[:30])
    assert find_missing(path) == "it has no data chunk"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_whole_files_pass(suffix, sound_files):
    assert find_missing(sound_files[suffix]) is None


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_cut_between_pages(suffix, sound_files, tmp_path):
    data = sound_files[suffix].read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: data.rfind(b"OggS")])
    assert find_missing(path) == "its last page is not marked as the end of the stream"


def test_mp3_without_its_header_frame_is_judged_by_its_last_frame(sound_files, tmp_path):
    data = sound_files["mp3"].read_bytes()
    headless = data[_mpeg_frame_bytes(data[:4]) :]
    path = tmp_path / "headless.mp3"
    path.write_bytes(headless)
    assert find_missing(path) is None
    path.write_bytes(headless[:-20])
    assert find_missing(path) == "its last frame is not complete"


def test_mp3_tags_do_not_count_as_sound(sound_files, tmp_path):
    data = sound_files["mp3"].read_bytes()
    front = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    path = tmp_path / "tagged.mp3"
    path.write_bytes(front + data + b"TAG" + bytes(125))
    assert find_missing(path) is None


def test_mpeg_frame_sizes():
    # ISO/IEC 11172-3: 128 kbit/s at 44.1 kHz is 417 bytes, 418 with padding.
    assert _mpeg_frame_bytes(b"\xff\xfb\x90\x00") == 417
    assert _mpeg_frame_bytes(b"\xff\xfb\x92\x00") == 418
    assert _mpeg_frame_bytes(b"\xff\xff\xff\xff") is None
    assert _mpeg_frame_bytes(b"\xff\xfb") is None
