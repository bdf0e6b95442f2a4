"""Find files that were cut short though their decoder would not say so.

Decoders play what is left of a cut wav, ogg or mp3 without complaint, so the container's own
account of its length is compared with what is there. Nothing is decoded here; what a
container does not tell (a wav or mp3 written as a stream) passes.

Sources: RIFF 1.0 (1991); RFC 3533 (Ogg), section 6; ISO/IEC 11172-3 and 13818-3 (MPEG audio
frame header).
"""

from __future__ import annotations

import mmap
from pathlib import Path

_UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # what writers to a pipe leave in the header
_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ = (44100, 48000, 32000)
_VERSION_DIVISOR = {3: 1, 2: 2, 0: 4}  # MPEG 1, 2, 2.5: each halves the sample rate


def find_missing(path: Path) -> str | None:
    """Say what is missing at the end of a file, or None if nothing is known to be.

    Args:
        path: A file that is not empty.

    Returns:
        A short phrase for the user, e.g. `data chunk says 128000 bytes, 64000 are there`.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return _missing_in_wav(data)
        if data[:4] == b"OggS":
            return _missing_in_ogg(data)
        if data[:3] == b"ID3" or (data[0] == 0xFF and _mpeg_frame_bytes(data[:4]) is not None):
            return _missing_in_mp3(data)
    return None


def _missing_in_wav(data: mmap.mmap) -> str | None:
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"data":
            there = len(data) - position - 8
            if size in _UNKNOWN_RIFF_SIZES or size <= there:
                return None
            return f"data chunk says {size} bytes, {there} are there"
        position += 8 + size + size % 2
    return "it has no data chunk"


def _missing_in_ogg(data: mmap.mmap) -> str | None:
    last = data.rfind(b"OggS")
    # A payload may contain the capture pattern by chance: version 0 and known flags tell.
    while last > 0 and (data[last + 4 : last + 5] != b"\0" or data[last + 5] > 7):
        last = data.rfind(b"OggS", 0, last)
    if last + 27 > len(data):
        return "its last page has no complete header"
    segments = data[last + 26]
    table = data[last + 27 : last + 27 + segments]
    if len(table) < segments or last + 27 + segments + sum(table) > len(data):
        return "its last page is not complete"
    if not data[last + 5] & 4:
        return "its last page is not marked as the end of the stream"
    return None


def _mpeg_frame_bytes(header: bytes) -> int | None:
    """Return the length in bytes of the layer III frame with that header, or None."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = (_MPEG1_KBPS if version == 3 else _MPEG2_KBPS)[bitrate]
    rate_hz = _MPEG1_RATES_HZ[rate] // _VERSION_DIVISOR[version]
    slots = 144 if version == 3 else 72
    return slots * 1000 * kbps // rate_hz + (header[2] >> 1 & 1)


def _missing_in_mp3(data: mmap.mmap) -> str | None:
    """Walk the frames: the last must be whole, and as many as a Xing header promises."""
    position = _skip_id3(data)
    promised = _xing_frames(data, position)
    frames = 0
    while (size := _mpeg_frame_bytes(data[position : position + 4])) is not None:
        if position + size > len(data):
            return "its last frame is not complete"
        position += size
        frames += 1
    # The frame that carries the header is not counted in it.
    if promised is not None and frames - 1 < promised:
        return f"its header says {promised} frames, {max(frames - 1, 0)} are there"
    return None


def _skip_id3(data: mmap.mmap) -> int:
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:  # seven bits each
        size = size << 7 | byte & 0x7F
    return 10 + size


def _xing_frames(data: mmap.mmap, position: int) -> int | None:
    size = _mpeg_frame_bytes(data[position : position + 4])
    frame = data[position : position + (size or 0)]
    for tag in (b"Xing", b"Info"):
        at = frame.find(tag, 4, 48)
        if at >= 0 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    return None
