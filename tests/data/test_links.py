"""Links: what a test may retrieve though it was never paired."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalbind.data.links import Link, read_links
from modalbind.errors import ManifestError


def test_a_manifest_gives_texts_and_pictures(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("text,image,language,positive_key\nHund,d.png,de,dog\ncat,,,\n,b.png,,\n")
    assert read_links(path) == [
        Link("text", "Hund", "dog", "de"),
        Link("image", "d.png", "dog"),
        Link("text", "cat", "cat", "en"),
        Link("image", "b.png", "b.png"),
    ]


def test_repeated_links_count_once(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text('{"text": "x", "image": "i.png"}\n{"text": "x"}\n')
    assert read_links(path) == [Link("text", "x", "x", "en"), Link("image", "i.png", "x")]


def test_a_text_file_holds_english_sentences(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("A dog.\n\n  A cat.\nA dog.\n")
    assert read_links(tmp_path / "l.txt") == [
        Link("text", "A dog.", "A dog.", "en"),
        Link("text", "A cat.", "A cat.", "en"),
    ]


def test_json_maps_keys_to_pictures(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_text('{"dog": ["1.png", "2.png"], "cat": []}')
    assert read_links(path) == [Link("image", "1.png", "dog"), Link("image", "2.png", "dog")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("l.json", "{", "mend the file"),
        ("l.json", "[]", "not an object of lists"),
        ("l.json", '{"dog": "1.png"}', "not an object of lists"),
        ("l.json", '{"dog": []}', "names no text and no picture"),
        ("l.csv", "word\nx\n", "names no text and no picture"),
        ("l.xml", "x", "suffix '.xml' is not known"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError, match=says):
        read_links(tmp_path / name)
    with pytest.raises(ManifestError):
        read_links(tmp_path / "absent.json")
