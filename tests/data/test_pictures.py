from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modalbind.data.pictures import open_picture
from modalbind.errors import BrokenSampleError


def picture(width: int = 20, height: int = 10) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture().convert(mode).save(path)
    found = open_picture(path)
    assert (found.mode, found.size) == ("RGB", (20, 10))


def test_pixels_are_unchanged(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        np.asarray(open_picture(tmp_path / "a.png")), np.asarray(picture())
    )


@pytest.mark.parametrize("limit", [150, 90])  # above the limit; above twice the limit
def test_too_many_pixels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BrokenSampleError) as caught:
        open_picture(tmp_path / "a.png")
    assert caught.value.reason == "too_large"


def test_broken_files_have_a_reason(tmp_path: Path) -> None:
    picture(200, 200).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    (tmp_path / "junk.png").write_bytes(b"not a picture")
    (tmp_path / "empty.png").touch()
    for name, reason in [
        ("cut.png", "undecodable"),
        ("junk.png", "undecodable"),
        ("empty.png", "empty"),
        ("gone.png", "missing"),
    ]:
        with pytest.raises(BrokenSampleError, match=name.replace(".", r"\.")) as caught:
            open_picture(tmp_path / name)
        assert caught.value.reason == reason
