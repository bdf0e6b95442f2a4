"""Lists of pairs: three formats say the same, and what is wrong is named with its place."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modalbind.data.files import FileDataset
from modalbind.data.manifest import build, read_rows
from modalbind.data.options import ManifestOptions
from modalbind.errors import ManifestError
from modalbind.interfaces import ModalitySpec
from modalbind.types import Pair


def make_spec(name: str = "audio") -> ModalitySpec:
    return ModalitySpec(
        name=name, summary="", api_version=1, build="x:y", unit="", suffixes=(),
        default_recipe="", quickstart_recipe="", is_text=name == "text",
    )  # fmt: skip


def read(path: Path, modality: str = "audio", **options: Any) -> FileDataset:
    return build(ManifestOptions(path=str(path), **options), None, make_spec(modality))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


ROWS: list[dict[str, Any]] = [
    {"audio": "a.wav", "text": "a dog,\nbarking", "language": "en", "image": "a.png",
     "split": "train", "fold": 1, "group": "g1", "positive_key": "k", "class": "dog"},
    {"audio": "b.wav", "text": 'ein "Hund"', "language": "de", "image": None,
     "split": "test", "fold": 2, "group": None, "positive_key": None, "class": None},
]  # fmt: skip
PAIRS = (
    Pair("a.wav", "a dog,\nbarking", "en", "a.png", "train", "1", "g1", "k", {"class": "dog"}),
    Pair("b.wav", 'ein "Hund"', "de", None, "test", "2", "b.wav", "", {"class": ""}),
)


def write_rows(path: Path) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
        write(path, "\n\n".join(lines) + "\n", "utf-8-sig")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_all_formats_give_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"pairs{suffix.lower()}").rename(tmp_path / f"pairs{suffix}")
    dataset = read(path, licence="CC0")
    assert dataset.pairs() == PAIRS
    assert (dataset.name, dataset.licence, dataset.root) == ("pairs", "CC0", tmp_path)
    assert dataset.manifest_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "audios,text\na.wav,x\n")
    with pytest.raises(ManifestError, match=r"'audio' asked .* did you mean 'audios'"):
        read(path)
    with pytest.raises(ManifestError, match="it has audios, text; add it"):
        read(path, "depth")
    with pytest.raises(ManifestError, match="'text' or 'image' asked"):
        read(write(tmp_path / "q.csv", "audio,label\na.wav,x\n"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", "audio,text\na.wav,x,y\n", "line 2 has not 2 cells"),
        ("p.csv", "audio,text\na.wav,x\nb.wav\n", "line 3 has not 2 cells"),
        ("p.csv", "audio,text,text\na.wav,x,y\n", "stands twice"),
        ("p.csv", "", "no rows"),
        ("p.csv", "audio,text\n", "no rows"),
        ("p.csv", 'audio,text\na.wav,"x\n', "cannot be read"),
        ("p.jsonl", "", "no rows"),
        ("p.jsonl", "[1]\n", "line 1 is not an object"),
        ("p.jsonl", "{\n", "cannot be read"),
        ("p.jsonl", '{"audio": "a"}\n\n{oops\n', "line 3 is not JSON"),
        ("p.jsonl", '{"audio": "a", "text": ["x", "y"]}\n', "'text' holds .* not one value"),
        ("p.parquet", "no parquet", "cannot be read"),
        ("p.tsv", "audio\ttext\n", "suffix '.tsv' is not known; use .csv, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    with pytest.raises(ManifestError, match=says) as caught:
        read(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(caught.value)


def test_bytes_that_are_no_text_and_absent_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"audio,text\na.wav,\xff\n")
    with pytest.raises(ManifestError, match=r"cannot be read; .*; save it as UTF-8"):
        read(tmp_path / "p.csv")
    with pytest.raises(ManifestError, match="no such file"):
        read(tmp_path / "q.csv")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("a.wav,\n", "row 1: neither text nor image"),
        ("a.wav,x\n,y\n", "row 2: column 'audio' is empty"),
    ],
)
def test_an_empty_cell_is_named_with_its_row(tmp_path: Path, rows: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        read(write(tmp_path / "p.csv", f"audio,text\n{rows}"))


def test_json_lines_may_lack_what_others_have_but_not_the_sample(tmp_path: Path) -> None:
    first, second = {"audio": "a.wav", "text": "x", "note": 1}, {"audio": "b.wav", "text": "y"}
    path = write(tmp_path / "p.jsonl", f"{json.dumps(first)}\n{json.dumps(second)}\n")
    assert [dict(pair.columns) for pair in read(path).pairs()] == [{"note": "1"}, {}]
    write(path, f"{json.dumps(first)}\n" + '{"text": "y"}\n')
    with pytest.raises(ManifestError, match="row 2: column 'audio' is empty"):
        read(path)


@pytest.mark.parametrize("key", ["../x.wav", "/x.wav", "away/x.wav"])
@pytest.mark.parametrize("column", ["audio", "image"])
def test_no_path_leaves_the_root(tmp_path: Path, key: str, column: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "away").symlink_to(tmp_path)
    cells = {"audio": "a.wav", "image": "a.png", column: key}
    path = write(tmp_path / "root/p.csv", f"audio,image\n{cells['audio']},{cells['image']}\n")
    with pytest.raises(ManifestError, match="outside the data root"):
        read(path)


def test_absolute_paths_below_the_root_are_the_relative_ones(tmp_path: Path) -> None:
    rows = f"{tmp_path}/a.wav,x,{tmp_path}/p.png\na.wav,y,p.png\n"
    pairs = read(write(tmp_path / "p.csv", f"audio,text,image\n{rows}")).pairs()
    assert {(pair.sample, pair.image, pair.group) for pair in pairs} == {
        ("a.wav", "p.png", "a.wav"),
    }


def test_spaces_around_the_names_of_columns_mean_nothing(tmp_path: Path) -> None:
    (pair,) = read(write(tmp_path / "p.csv", "audio, text ,\tkind\na.wav,x,k\n")).pairs()
    assert (pair.text, pair.columns) == ("x", {"kind": "k"})
    with pytest.raises(ManifestError, match="stands twice"):
        read(write(tmp_path / "q.csv", "audio,text, text\na.wav,x,y\n"))


@pytest.mark.parametrize(("mark", "shown"), [(";", "';'"), ("\t", r"'\\t'")])
def test_another_separator_than_commas_is_named(tmp_path: Path, mark: str, shown: str) -> None:
    path = write(tmp_path / "p.csv", f"audio{mark}text\na.wav{mark}one, two\n")
    with pytest.raises(ManifestError, match=f"separated by {shown}; save it with commas"):
        read(path)


def test_paths_are_relative_to_the_root_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists/p.csv", "audio,text\nsounds/a.wav,x\n")
    dataset = build(ManifestOptions(path=str(path)), tmp_path, make_spec())
    assert dataset.root == tmp_path


@pytest.mark.parametrize(
    ("column", "values"), [("split", "train test"), ("fold", "1 2"), ("group", "g h")]
)
def test_rows_of_a_sample_must_agree(tmp_path: Path, column: str, values: str) -> None:
    first, second = values.split()
    text = f"audio,text,{column}\nb.wav,z,{first}\na.wav,x,{first}\na.wav,y,{second}\n"
    with pytest.raises(ManifestError, match=r"row 3: sample 'a.wav'.*make them agree"):
        read(write(tmp_path / "p.csv", text))


TEXTS = """image,text,language,positive_key,group
a.png,A frog.,en,frog,pond
b.png,A frog.,en,frog,sea
a.png,Ein Frosch.,de,frog,pond
c.png,../../etc/passwd,en,odd,desk
c.png,Taxi.,en,taxi,road
c.png,Taxi.,de,taxi,road
"""


def test_a_text_is_its_own_sample_in_its_language(tmp_path: Path) -> None:
    found = read(write(tmp_path / "texts.csv", TEXTS), "text")
    assert [(p.sample, p.text, p.sample_language, p.image) for p in found.pairs()][:3] == [
        ("en|A frog.", "A frog.", "en", "a.png"),
        ("en|A frog.", "A frog.", "en", "b.png"),
        ("de|Ein Frosch.", "Ein Frosch.", "de", "a.png"),
    ]
    assert {p.sample for p in found.pairs()} >= {"en|Taxi.", "de|Taxi.", "en|../../etc/passwd"}
    sample = found.load_sample("de|Taxi.", object())  # type: ignore[arg-type]
    assert (sample.text, sample.language) == ("Taxi.", "de")


def test_groups_that_share_a_text_are_one(tmp_path: Path) -> None:
    found = read(write(tmp_path / "texts.csv", TEXTS), "text")
    groups = [pair.group for pair in found.pairs()]
    assert groups[0] == groups[1] == groups[2], "the sea's frog is the pond's"
    assert len({groups[0], groups[3], groups[4]}) == 3


def test_all_rows_can_be_of_one_split(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.csv", TEXTS)
    assert {pair.split for pair in read(path, "text", split="test").pairs()} == {"test"}


def test_quoted_newlines_do_not_make_rows(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "p.csv", 'audio,text\r\na.wav,"x\r\ny"\r\n'))
    assert rows == [{"audio": "a.wav", "text": "x\r\ny"}]


def test_a_picture_is_its_own_sample_only_with_a_text(tmp_path: Path) -> None:
    (pair,) = read(write(tmp_path / "p.csv", "image,text\na.png,x\n"), "image").pairs()
    assert (pair.sample, pair.image) == ("a.png", None)
    with pytest.raises(ManifestError, match="neither text nor image"):
        read(write(tmp_path / "p.csv", "image,text\na.png,\n"), "image")


def test_pictures_are_given_by_positive_key(tmp_path: Path) -> None:
    pairs = write(tmp_path / "p.csv", "audio,text\na.wav,a dog\nb.wav,a cat\nc.wav,a bee\n")
    write(tmp_path / "l.json", '{"a dog": ["1.png", "2.png"], "a cat": ["3.png"]}')
    found = read(pairs, pictures="l.json").pairs()
    assert [(p.sample, p.image) for p in found] == [
        ("a.wav", "1.png"),
        ("a.wav", "2.png"),
        ("b.wav", "3.png"),
        ("c.wav", None),
    ]
    write(tmp_path / "none.json", '{"a fox": ["1.png"]}')
    with pytest.raises(ManifestError, match="none has a key of the samples'"):
        read(pairs, pictures="none.json")
    write(tmp_path / "out.json", '{"a dog": ["../1.png"]}')
    with pytest.raises(ManifestError, match="outside the data root"):
        read(pairs, pictures="out.json")
