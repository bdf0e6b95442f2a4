from __future__ import annotations

from pathlib import Path

import pytest

from modalbind.anchors.spec import AnchorName, local_path, parse_spec, split_files
from modalbind.errors import AnchorError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("openclip:ViT-B-32@openai", ("openclip", "ViT-B-32", "openai")),
        ("openclip:world", ("openclip", "world", None)),
        ("openclip:hf-hub:org/name", ("openclip", "hf-hub:org/name", None)),
        ("openclip:hf-hub:org/name@main", ("openclip", "hf-hub:org/name", "main")),
        ("openclip:local-dir:/a@b:c/d", ("openclip", "local-dir:/a@b:c/d", None)),
        ("openclip:ViT-B-32@/weights/a@b.pt", ("openclip", "ViT-B-32", "/weights/a@b.pt")),
        ("transformers:/models/m@1", ("transformers", "/models/m@1", None)),
        ("transformers:./m@1", ("transformers", "./m@1", None)),
        ("transformers:org/m@v2", ("transformers", "org/m", "v2")),
        ("transformers:C:/models/m", ("transformers", "C:/models/m", None)),
        ("precomputed:a@b.npz,c:d.npz", ("precomputed", "a@b.npz,c:d.npz", None)),
    ],
)
def test_parse(spec: str, expected: tuple[str, str, str | None]) -> None:
    assert parse_spec(spec) == AnchorName(*expected)


def test_a_path_that_exists_keeps_its_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m@1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_spec("transformers:m@1").tag is None
    assert local_path(parse_spec("transformers:m@1")) == tmp_path / "m@1"


@pytest.mark.parametrize(
    "spec", ["", "openclip", "openclip:", ":x", "openclip:@tag", "openclip:x@"]
)
def test_malformed(spec: str) -> None:
    with pytest.raises(AnchorError, match=r"kind:source"):
        parse_spec(spec)


def test_files_by_comma_unless_the_file_has_one(tmp_path: Path) -> None:
    odd = tmp_path / "a,b.npz"
    assert split_files(f"{tmp_path}/x.npz, {tmp_path}/y.npz") == (
        tmp_path / "x.npz",
        tmp_path / "y.npz",
    )
    assert len(split_files(str(odd))) == 2
    odd.touch()
    assert split_files(str(odd)) == (odd,)


def test_local_paths_are_absolute_and_hub_names_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path(parse_spec("openclip:local-dir:gone")) == tmp_path / "gone"
    assert local_path(parse_spec("openclip:hf-hub:org/name")) is None
    assert local_path(parse_spec("openclip:ViT-B-32@openai")) is None
    world = local_path(parse_spec("openclip:world"))
    assert world is not None and world.name == "anchor"
