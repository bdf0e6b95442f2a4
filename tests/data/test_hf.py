"""Data sets of Hugging Face: made here, read from folders, by columns, with nothing decoded."""

from __future__ import annotations

import csv
import hashlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pytest
import toy
from byte_modality import Bytes, make_sound, make_spec

from modalbind import pipeline
from modalbind.data.files import FileDataset
from modalbind.data.options import HfOptions
from modalbind.errors import BrokenSampleError, ManifestError
from modalbind.interfaces import ModalitySpec
from modalbind.testing import check_dataset
from modalbind.types import Pair

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield


def read(path: Path | str, modality: ModalitySpec | None = None, **options: Any) -> FileDataset:
    from modalbind.data.hf import build

    return build(HfOptions(path=str(path), **options), None, modality or make_spec())


def picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def make_table() -> Any:
    """A table as the hub has them: files as bytes, a class label, lists of captions."""
    rows = {
        "audio": [{"bytes": b"one", "path": "a/1.wav"}, {"bytes": b"two", "path": "2.flac"}, None],
        "image": [{"bytes": picture(), "path": None}, None, None],
        "caption": [["a dog", "ein Hund"], ["a cat"], ["a cow"]],
        "language": [["en", "de"], ["en"], ["fr"]],
        "video": ["v1", "v2", "v1"],
        "label": [1, 0, -1],
        "year": [2001, None, 2003],
        "raw": [b"x", b"y", b"z"],
        "vector": [[0.5], [0.5], [0.5]],
    }
    from datasets.table import InMemoryTable

    text, value = datasets.Value("string"), datasets.Value
    features = datasets.Features(
        audio=datasets.Audio(), image=datasets.Image(), caption=datasets.List(text),
        language=datasets.List(text), video=text, label=datasets.ClassLabel(names=["cat", "dog"]),
        year=value("int64"), raw=value("binary"), vector=datasets.List(value("float32")),
    )  # fmt: skip
    # From Arrow: the library would ask for its decoders to write sounds.
    return datasets.Dataset(InMemoryTable(pa.table(rows, schema=features.arrow_schema)))


COLUMNS = {"text": "caption", "group": "video"}


def test_columns_are_read_as_those_of_a_manifest(tmp_path: Path) -> None:
    make_table().save_to_disk(tmp_path / "saved")
    dataset = read(tmp_path / "saved", columns=COLUMNS, licence="CC0", name="mine")
    first = ("rows#0.audio", "rows#0.image", {"label": "dog", "year": "2001"})
    assert dataset.pairs() == (
        Pair(first[0], "a dog", "en", first[1], group="v1", columns=first[2]),
        Pair(first[0], "ein Hund", "de", first[1], group="v1", columns=first[2]),
        Pair("rows#1.audio", "a cat", group="v2", columns={"label": "cat", "year": ""}),
        Pair("rows#2.audio", "a cow", "fr", group="v1", columns={"label": "", "year": "2003"}),
    )
    assert (dataset.name, dataset.licence, dataset.root) == ("mine", "CC0", tmp_path / "saved")
    assert dataset.load_sample("rows#0.audio", Bytes()) == (".wav", b"one")
    assert dataset.load_sample("rows#1.audio", Bytes()) == (".flac", b"two")
    assert dataset.sample_hash("rows#1.audio", Bytes()) == hashlib.sha256(b"two").digest()
    item = dataset.anchor_item("image", "rows#0.image")
    assert item.content_hash == hashlib.sha256(picture()).digest()
    assert item.load().size == (3, 2)
    for key in ("rows#2.audio", "rows#3.audio", "rows#0.label", "other#0.audio", "x"):
        with pytest.raises(BrokenSampleError, match=f"missing: {key}"):
            dataset.load_sample(key, Bytes())
    sent = pickle.loads(pickle.dumps(dataset))  # as to a worker process
    assert sent.load_sample("rows#1.audio", Bytes()) == (".flac", b"two")
    again = read(tmp_path / "saved", columns=COLUMNS, name="mine", suffix=".ogg")
    assert again.manifest_hash == dataset.manifest_hash
    assert again.load_sample("rows#1.audio", Bytes()) == (".ogg", b"two")


def test_rows_that_share_a_key_are_one_sample(tmp_path: Path) -> None:
    make_table().save_to_disk(tmp_path / "saved")
    dataset = read(tmp_path / "saved", columns={**COLUMNS, "key": "video"})
    assert [(pair.sample, pair.text) for pair in dataset.pairs()] == [
        ("rows#0.audio", "a dog"), ("rows#0.audio", "ein Hund"), ("rows#1.audio", "a cat"),
        ("rows#0.audio", "a cow"),
    ]  # fmt: skip


def write_parquet(folder: Path, **splits: Any) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, table in splits.items():
        table.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


def test_a_folder_of_parquet_files_is_read_by_splits(tmp_path: Path) -> None:
    table = make_table()
    folder = write_parquet(tmp_path / "mine", train=table, validation=table.select([1]))
    both = read(folder, columns=COLUMNS)
    assert [(pair.sample, pair.split) for pair in both.pairs()] == [
        ("train#0.audio", "train"), ("train#0.audio", "train"), ("train#1.audio", "train"),
        ("train#2.audio", "train"), ("validation#0.audio", "val"),
    ]  # fmt: skip
    assert both.load_sample("validation#0.audio", Bytes())[1] == b"two"
    one = read(folder, columns=COLUMNS, split="validation")
    assert [(pair.sample, pair.split) for pair in one.pairs()] == [("validation#0.audio", "val")]
    cut = read(folder, columns=COLUMNS, split="train[1:2]")
    assert [(pair.sample, pair.split) for pair in cut.pairs()] == [("train[1:2]#0.audio", "train")]
    assert cut.load_sample("train[1:2]#0.audio", Bytes())[1] == b"two"
    with pytest.raises(ManifestError, match=r'Unknown split "test"'):
        read(folder, columns=COLUMNS, split="test")


def test_saved_splits_are_read_by_name(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=make_table(), test=make_table().select([1]))
    saved.save_to_disk(tmp_path / "saved")
    assert {p.split for p in read(tmp_path / "saved", columns=COLUMNS).pairs()} == {"train", "test"}
    (pair,) = read(tmp_path / "saved", columns=COLUMNS, split="test").pairs()
    assert (pair.sample, pair.split) == ("test#0.audio", "test")
    with pytest.raises(ManifestError, match=r"split 'val' asked of .*; it has train, test; name"):
        read(tmp_path / "saved", columns=COLUMNS, split="val")


def test_files_beside_the_table_are_read_below_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(b"secret")
    folder = tmp_path / "saved"
    names = [
        "a.wav",
        "../secret.wav",
        str(tmp_path / "secret.wav"),
        "none.wav",
        str(folder / "a.wav"),
    ]
    table = datasets.Dataset.from_dict({"audio": names, "text": ["x"] * 5})
    table.save_to_disk(folder)
    (folder / "a.wav").write_bytes(b"beside")
    dataset = read(folder, language="de")
    assert {pair.language for pair in dataset.pairs()} == {"de"}
    found = []
    for pair in dataset.pairs():
        try:
            found.append(dataset.load_sample(pair.sample, Bytes())[1])
        except BrokenSampleError as error:
            found.append(error.reason.encode())
    assert found == [b"beside", b"missing", b"missing", b"missing", b"beside"]


def test_samples_that_cannot_be_read_are_broken(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict(
        {"audio": [b"", bytes(2**20 + 1), b"broken", b"good"], "text": list("abcd")}
    )
    table.save_to_disk(tmp_path / "saved")
    dataset = read(tmp_path / "saved", max_sample_mib=1)
    reasons = []
    for pair in dataset.pairs():
        try:
            dataset.load_sample(pair.sample, Bytes())
        except BrokenSampleError as error:
            assert error.detail.startswith(pair.sample)
            reasons.append(error.reason)
    assert reasons == ["empty", "too_large", "undecodable"]


def test_what_is_lacking_or_no_file_is_refused(tmp_path: Path) -> None:
    make_table().save_to_disk(tmp_path / "saved")
    refused = {
        "column 'depth' asked .*; name it: columns: .depth: COLUMN": {
            "modality": make_spec("depth")
        },
        "column 'captions' asked .* as text; .* did you mean 'caption'": {
            "columns": {"text": "captions"}
        },
        "asked of .* for files; it holds list<item: float>": {"columns": {"audio": "vector"}},
    }
    for message, options in refused.items():
        with pytest.raises(ManifestError, match=message) as caught:
            read(tmp_path / "saved", **options)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    for path, message in {
        "no/such/folder": "neither a folder nor owner/name",
        "owner/none": "data set owner/none asked for; ",
        str(tmp_path / "empty"): f"data set {tmp_path / 'empty'} asked for; ",
    }.items():
        with pytest.raises(ManifestError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_name_is_asked_of_the_hub_with_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*names: str, **options: Any) -> Any:
        asked.append((names, options))
        return datasets.Dataset.from_dict({"audio": [b"one"], "text": ["x"]}, split="train")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    dataset = read("owner/name", subset="small", revision="v1", split="train[:1]")
    assert asked == [(("owner/name", "small"), {"split": "train[:1]", "revision": "v1"})]
    (pair,) = dataset.pairs()
    assert (pair.split, pair.group) == ("train", "owner/name:train[:1]#0.audio")
    assert (dataset.name, dataset.root) == ("owner/name", Path())


def test_code_of_a_data_set_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ManifestError, match="scripts are no longer supported"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_texts_alone_are_samples_of_texts(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": ["ein Hund"], "language": ["de"]})
    table.save_to_disk(tmp_path / "saved")
    (pair,) = read(tmp_path / "saved", make_spec("text", ())).pairs()
    assert (pair.sample, pair.text, pair.sample_language) == ("de|ein Hund", "ein Hund", "de")


def test_a_run_learns_from_a_table(toy_world: Path, tmp_path: Path) -> None:
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    with (toy_world / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            content = (toy_world / row["toy"]).read_bytes()
            parts[row.pop("split")].append({**row, "toy": {"bytes": content, "path": row["toy"]}})
    tables = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
    folder = write_parquet(tmp_path / "hub", **tables)
    source = {"kind": "hf", "path": str(folder)}
    for name in ("links.csv", "classes.json"):
        (folder / name).write_bytes((toy_world / name).read_bytes())
    plain = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "plain")
    recipe = toy.build_recipe(toy_world, data={"sources": [source], "workers": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert (run.report.data.train_pairs, run.report.data.test_pairs) == (24, 12)
    assert run.report.data.overlap == 0
    (row, expected) = (
        next(
            r for r in report.retrieval if (r.query, r.target, r.language) == ("toy", "text", "en")
        )
        for report in (run.report, plain.report)
    )
    assert row.metrics.hit_at_1.value == pytest.approx(expected.metrics.hit_at_1.value, abs=0.2)
    assert row.metrics.hit_at_1.value > 3 * row.metrics.hit_at_1.chance
    again = pipeline.evaluate(run.path)
    assert again.data == run.report.data and again.retrieval == run.report.retrieval


def test_tables_keep_the_contract_of_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("modalbind_audio")
    monkeypatch.setenv("MODALBIND_PLUGINS", "audio")
    sounds = [{"bytes": make_sound(number), "path": "a.wav"} for number in range(3)]
    table = datasets.Dataset.from_dict({"audio": sounds, "text": list("abc")})
    table.save_to_disk(tmp_path / "saved")
    report = check_dataset("hf", {"path": str(tmp_path / "saved")})
    assert [result for result in report.results if result.status != "passed"] == []
