"""Tar shards: what they say, each sample once an epoch in however many processes, hostile files.

Shards are made by webdataset's own writer where it is installed, else by `tarfile`; what is
expected is computed from the made-up samples, never from the shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import toy
from byte_modality import Bytes, make_sound, make_spec
from torch.utils.data import DataLoader

from modalbind import pipeline
from modalbind.data import tar_index
from modalbind.data.files import FileDataset
from modalbind.data.loader import FeatureSet, TrainingBatches
from modalbind.data.options import WebDatasetOptions
from modalbind.data.samples import group_pairs
from modalbind.data.store import SampleStore
from modalbind.data.webdataset import build
from modalbind.errors import BrokenSampleError, DataError, ManifestError
from modalbind.interfaces import Modality, ModalitySpec
from modalbind.recipe import Recipe
from modalbind.rundir import RunDirectory
from modalbind.testing import check_dataset
from modalbind.types import Pair

Files = Mapping[str, Any]


def add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def write_tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            add(tar, name, text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path | str, modality: ModalitySpec | None = None, **options: Any) -> FileDataset:
    return build(WebDatasetOptions(path=str(path), **options), None, modality or make_spec())


def test_a_sample_is_what_its_members_say(tmp_path: Path) -> None:
    columns = {
        "caption": ["a dog", "ein Hund"], "language": ["en", "de"], "group": "g", "split": "test",
        "positive_key": "k", "fold": 2, "label": "dog", "n": None,
        "boxes": [1, 2], "original": {"a": 1},
    }  # fmt: skip
    path = write_tar(
        tmp_path / "sub" / "a-0.tar",
        {"x/1.json": columns, "x/1.WAV": b"one", "./x/1.jpg": b"two", "2.json": {"caption": "cat"},
         "2.wav": b"three", "2.txt": "not asked for", "__meta__/1.json": "{", "._2.wav": b"",
         "README": ""},
    )  # fmt: skip
    dataset = read(path, columns={"text": "caption"}, members={"image": "jpg;png"}, licence="CC0")
    key, told = "a-0.tar#x/1.WAV", {"label": "dog", "n": ""}
    picture = "a-0.tar#x/1.jpg"
    assert dataset.pairs() == (
        Pair(key, "a dog", "en", picture, "test", "2", "g", "k", told),
        Pair(key, "ein Hund", "de", picture, "test", "2", "g", "k", told),
        Pair("a-0.tar#2.wav", "cat", group="sub/a-0.tar:a-0.tar#2.wav"),
    )
    assert (dataset.name, dataset.licence, dataset.root) == ("sub/a-0.tar", "CC0", path.parent)
    assert dataset.load_sample(key, Bytes()) == (".WAV", b"one")
    assert dataset.sample_hash(key, Bytes()) == hashlib.sha256(b"one").digest()
    item = dataset.anchor_item("image", picture)
    assert (item.key, item.content_hash) == (picture, hashlib.sha256(b"two").digest())
    with pytest.raises(BrokenSampleError, match=r"undecodable: a-0.tar#x/1.jpg: cannot identify"):
        item.load()


def test_a_worker_process_can_have_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.wav": b"one", "1.txt": "a"})
    sent = pickle.loads(pickle.dumps(read(path)))
    assert sent.load_sample("a.tar#1.wav", Bytes()) == (".wav", b"one")


def test_a_picture_is_decoded(tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (9, 8, 7)).save(buffer, "PNG")
    files = {"1.wav": b"a", "1.png": buffer.getvalue(), "1.txt": "a dog"}
    dataset = read(write_tar(tmp_path / "a.tar", files), members={"image": "png"})
    picture = dataset.anchor_item("image", dataset.pairs()[0].image or "").load()
    assert (picture.size, picture.getpixel((0, 0))) == ((3, 2), (9, 8, 7))
    with pytest.raises(BrokenSampleError, match="missing"):  # a file beside the shards, as ever
        dataset.anchor_item("image", "1.png").load()


def test_texts_alone_are_samples_of_texts(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.txt": "ein Hund", "1.json": {"language": "de"}})
    dataset = read(path, make_spec("text", ()))
    (pair,) = dataset.pairs()
    assert (pair.sample, pair.text, pair.sample_language) == ("de|ein Hund", "ein Hund", "de")
    assert dataset.load_sample(pair.sample, Bytes()).text == "ein Hund"  # type: ignore[arg-type]


def test_samples_that_cannot_be_read_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lent").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "lent"))
    files = {"1.wav": b"", "1.txt": "a", "2.txt": "b", "3.wav": b"broken", "3.txt": "c",
             "4.wav": bytes(2**20 + 1), "4.txt": "d", "5.wav": b"e", "5.txt": "e"}  # fmt: skip
    dataset = read(write_tar(tmp_path / "a.tar", files), max_sample_mib=1)
    reasons = {}
    for pair in dataset.pairs():
        try:
            dataset.load_sample(pair.sample, Bytes())
        except BrokenSampleError as error:
            assert error.detail.startswith(pair.sample)
            reasons[pair.text] = error.reason
    assert reasons == {"a": "empty", "b": "missing", "c": "undecodable", "d": "too_large"}
    assert not list((tmp_path / "lent").iterdir())


REFUSED: dict[str, tuple[Files, dict[str, Any], str]] = {
    "two members": ({"1.wav": b"a", "1.flac": b"b", "1.txt": "x"}, {}, "found wav, flac; name it"),
    "none": ({"1.mp3": b"a", "1.txt": "x"}, {}, r"have mp3, txt; name it: members: \{audio"),
    "same extension": ({"1.wav": b"a", "1.WAV": b"b"}, {}, "'1.wav' and '1.WAV'"),
    "no text": ({"1.wav": b"a"}, {}, "sample 1: neither text nor image is given; give one"),
    "two texts": ({"1.wav": b"a", "1.txt": "x", "1.json": {"text": "y"}}, {}, "'x' and its .* 'y'"),
    "no JSON": ({"1.wav": b"a", "1.json": "{"}, {}, "1.json is not JSON"),
    "no object": ({"1.wav": b"a", "1.json": "[]"}, {}, "is not an object"),
    "deep JSON": ({"1.wav": b"a", "1.json": "[" * 99_999}, {}, "1.json is not JSON"),
    "nested": ({"1.wav": b"a", "1.json": {"text": {"en": "x"}}}, {}, "not one value a row"),
    "lists": (
        {"1.wav": b"a", "1.json": {"text": ["x", "y"], "language": ["en"]}}, {},
        "found 2 of text, 1 of language",
    ),
    "not UTF-8": ({"1.wav": b"a", "1.txt": b"\xff"}, {}, "'1.txt' is not UTF-8; mend it"),
    "long text": ({"1.wav": b"a", "1.txt": "x" * 1_000_001}, {}, "it has 1000001 bytes; shorten"),
    "column": (
        {"1.wav": b"a", "1.json": {"text": "x", "video": 1}}, {"columns": {"group": "vidoe"}},
        "'vidoe' asked .* as group; it has text, video; did you mean 'video'",
    ),
    "member": ({"1.wav": b"a"}, {"members": {"sound": "wav"}}, "members are text, json, image, au"),
    "text member": ({"1.wav": b"a"}, {"members": {"text": "cap"}}, "end in .json, .txt; name one"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_contradictory_or_lacking_is_refused(tmp_path: Path, name: str) -> None:
    files, options, message = REFUSED[name]
    with pytest.raises(ManifestError, match=message) as caught:
        read(write_tar(tmp_path / "a.tar", files), **options)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_a_split_may_be_said_for_all(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.wav": b"a", "1.json": {"text": "x", "split": "z"}})
    assert read(path, split="val").pairs()[0].split == "val"


def test_a_text_that_is_in_two_places_is_taken_from_the_named_one(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.wav": b"a", "1.txt": "x", "1.json": {"text": "y"}})
    assert read(path, members={"text": "txt"}).pairs()[0].text == "x"
    assert read(path, columns={"text": "text"}).pairs()[0].text == "y"


def test_braces_name_several_shards(tmp_path: Path) -> None:
    pytest.importorskip("braceexpand")
    for number, part in enumerate(("train/0", "train/1", "val/0")):
        write_tar(tmp_path / f"{part}.tar", {"1.wav": str(number).encode(), "1.txt": part})
    dataset = read(tmp_path / "{train/{0..1},val/0}.tar")
    keys = [pair.sample for pair in dataset.pairs()]
    assert keys == ["train/0.tar#1.wav", "train/1.tar#1.wav", "val/0.tar#1.wav"]
    assert [dataset.load_sample(key, Bytes())[1] for key in keys] == [b"0", b"1", b"2"]
    with pytest.raises(ManifestError, match=r"shard .*train/2.tar asked for; No such file"):
        read(tmp_path / "train/{0..2}.tar")
    with pytest.raises(ManifestError, match="names one twice"):
        read(tmp_path / "train/{0,0}.tar")
    with pytest.raises(ManifestError, match="close the braces"):
        read(tmp_path / "train/{0..1.tar")


@pytest.mark.parametrize("path", ["https://host/{0..9}.tar", "s3://b/a.tar", "pipe:cat a.tar"])
def test_a_stream_is_refused(path: str) -> None:
    with pytest.raises(ManifestError, match="which a stream cannot; copy the shards"):
        read(path)


def _links(tar: tarfile.TarFile) -> None:
    add(tar, "1.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")


def _hard_links(tar: tarfile.TarFile) -> None:
    add(tar, "1.wav", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")


def _pipes(tar: tarfile.TarFile) -> None:
    add(tar, "1.wav", b"", type=tarfile.FIFOTYPE)


def _parents(tar: tarfile.TarFile) -> None:
    add(tar, "../1.wav", b"x")


def _absolute(tar: tarfile.TarFile) -> None:
    add(tar, "/tmp/1.wav", b"x")


def _control_characters(tar: tarfile.TarFile) -> None:
    add(tar, "1\n.wav", b"x")


def _twice(tar: tarfile.TarFile) -> None:
    add(tar, "1.wav", b"x")
    add(tar, "1.wav", b"y")


def _huge(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("1.wav")
    info.size = 2**43
    tar.fileobj.write(info.tobuf())  # type: ignore[union-attr]


def _negative(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("1.wav")
    info.size = -1024
    tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]


def _chained(tar: tarfile.TarFile) -> None:
    record = b"13 comment=a\n"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    for _ in range(5000):
        tar.fileobj.write(info.tobuf() + record.ljust(512, b"\0"))  # type: ignore[union-attr]


HOSTILE = {
    _links: "is a link", _hard_links: "is a link", _pipes: "is a link or another thing",
    _parents: "no name of a sample's file", _absolute: "no name of", _control_characters: "no name",
    _twice: "is in it twice", _huge: "no plain, whole tar", _negative: "", _chained: "",
}  # fmt: skip


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__.strip("_"))
def test_hostile_shards_are_refused(tmp_path: Path, fill: Any) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        fill(tar)
    with pytest.raises(
        ManifestError, match=rf"shard {path} asked for; .*{HOSTILE[fill]}"
    ) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_any_cut_or_damaged_shard_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", {"1.wav": b"x" * 700, "1.txt": "a", "2.wav": b"y" * 9})
    content = whole.read_bytes()
    end = 512 * (3 + 2 + 2)  # headers and padded contents; what follows are zeros
    assert set(content[end:]) == {0}
    for length in range(0, end + 1, 64):
        cut = tmp_path / f"cut{length}.tar"
        cut.write_bytes(content[:length])
        with pytest.raises(ManifestError, match=r"; get .* anew"):
            read(cut)
    damaged = bytearray(content)
    damaged[512 * 3 + 20] ^= 1  # in the second header
    (tmp_path / "bad.tar").write_bytes(damaged)
    with pytest.raises(ManifestError, match="cut short or damaged at byte 1536"):
        read(tmp_path / "bad.tar")
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        add(tar, "1.wav", b"x")
    with pytest.raises(ManifestError, match="gunzip"):
        read(packed)


def test_an_index_is_kept_and_made_anew_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.wav": b"one", "1.txt": "a"})
    scanned = []
    scan = tar_index._scan
    monkeypatch.setattr(tar_index, "_scan", lambda p, f: scanned.append(p) or scan(p, f))  # type: ignore[func-returns-value]
    first, again = read(path), read(path)
    assert first.pairs() == again.pairs() and len(scanned) == 1
    (kept,) = (Path(os.environ["MODALBIND_CACHE"]) / "shards").iterdir()

    flipped = bytearray(kept.read_bytes())
    flipped[-12] ^= 1
    kept.write_bytes(flipped)
    assert read(path).pairs() == first.pairs() and len(scanned) == 2

    os.utime(path, ns=(1, 1))
    assert read(path).manifest_hash == first.manifest_hash and len(scanned) == 3
    write_tar(path, {"0.wav": b"none", "1.wav": b"two", "0.txt": "x", "1.txt": "b"})
    with pytest.raises(BrokenSampleError, match="changed"):
        first.load_sample("a.tar#1.wav", Bytes())
    changed = read(path)
    assert changed.load_sample("a.tar#1.wav", Bytes())[1] == b"two" and len(scanned) == 4
    assert changed.manifest_hash != first.manifest_hash
    assert list(kept.parent.iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_to_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    monkeypatch.setenv("MODALBIND_CACHE", str(taken))
    assert len(read(write_tar(tmp_path / "a.tar", {"1.wav": b"a", "1.txt": "x"})).pairs()) == 1
    assert "cannot be kept" in caplog.text


def write_shards(folder: Path, samples: Mapping[str, Files], per_shard: int) -> str:
    """Write shards as webdataset publishes them; return the pattern that names them."""
    items = list(samples.items())
    parts = [items[i : i + per_shard] for i in range(0, len(items), per_shard)]
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        path = folder / f"train-{number:06d}.tar"
        try:
            from webdataset import TarWriter
        except ModuleNotFoundError:
            write_tar(path, {f"{k}.{e}": v for k, sample in part for e, v in sample.items()})
            continue
        with TarWriter(str(path)) as writer:
            for key, sample in part:
                writer.write({"__key__": key, **sample})
    return str(folder / f"train-{{000000..{len(parts) - 1:06d}}}.tar")


COUNT, RANKS, WORKERS, EPOCHS = 103, 3, 2, 2


def test_an_epoch_has_each_sample_once_over_all_ranks_and_workers(tmp_path: Path) -> None:
    """Each rank takes its share of each batch of the common order, through worker processes."""
    pytest.importorskip("braceexpand")
    samples = {f"{n:05d}": {"wav": str(n).encode(), "txt": f"text {n}"} for n in range(COUNT)}
    dataset = read(write_shards(tmp_path / "shards", samples, 10))
    modality: Modality = Bytes()  # type: ignore[assignment]
    orders: dict[int, list[int]] = {epoch: [] for epoch in range(EPOCHS)}
    for rank in range(RANKS):
        store = SampleStore([dataset], modality, 0)
        features = FeatureSet(group_pairs(dataset.pairs(), 0), store, seed=3)
        batches = TrainingBatches(features, {}, {}, batch_size=12, source_weights=[1.0])
        plan = [
            [(epoch, index) for index in share]
            for epoch in range(EPOCHS)
            for position in range(batches.steps_per_epoch)
            if (share := batches.slice_order(batches.order(epoch), position)[rank::RANKS])
        ]
        loader = DataLoader(features, batch_sampler=plan, num_workers=WORKERS, collate_fn=list)
        for planned, read_there in zip(plan, loader, strict=True):
            numbers = [int(each) for each in read_there]
            # The text beside each sample is its own.
            assert [features.samples[i].captions[0].text for _, i in planned] == [
                f"text {number}" for number in numbers
            ]
            orders[planned[0][0]] += numbers
    assert all(Counter(order) == Counter(range(COUNT)) for order in orders.values())
    assert orders[0] != orders[1]


@pytest.fixture
def shards(toy_world: Path) -> str:
    """The toy world as shards."""
    pytest.importorskip("braceexpand")
    import csv

    samples: dict[str, Files] = {}
    with (toy_world / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row.pop("toy")
            samples[Path(name).stem] = {
                "toy.json": (toy_world / name).read_bytes(), "json": {**row, "group": name}
            }  # fmt: skip
            (toy_world / name).unlink()
    samples["broken"] = {"toy.json": b"[]", "json": {"text": "a star", "split": "train"}}
    pattern = write_shards(toy_world / "shards", samples, 7)
    for name in ("links.csv", "classes.json"):
        shutil.copy(toy_world / name, toy_world / "shards" / name)
    return pattern


def build_recipe(folder: Path, pattern: str, **train: Any) -> Recipe:
    source = {"kind": "webdataset", "path": pattern, "members": {"toy": "toy.json"}}
    data = {"sources": [source], "max_broken_fraction": 0.1, "workers": 1}
    return toy.build_recipe(folder, data=data, train=train)


def test_a_run_learns_from_shards(toy_world: Path, shards: str, tmp_path: Path) -> None:
    planned = pipeline.describe(build_recipe(toy_world, shards))["data"]
    assert (planned["train_samples"], planned["test_samples"]) == (24, 12)
    run = pipeline.align(build_recipe(toy_world, shards), out=tmp_path / "run")
    report = run.report
    assert (report.data.train_pairs, report.data.test_pairs) == (24, 12)
    assert report.data.skipped == {"empty": 1} and report.data.overlap == 0
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language, row.control) == ("toy", "text", "en", "none")
    ]
    assert row.metrics.hit_at_1.value > 3 * row.metrics.hit_at_1.chance
    again = pipeline.evaluate(run.path)
    assert again.data == report.data and again.retrieval == report.retrieval
    other = pipeline.evaluate(run.path, data=Path(shards.replace("000000..", "000003..")))
    assert 0 < other.data.test_pairs < 12  # with the members that the run's own had
    assert "000003.." in other.data.name


def test_a_run_on_shards_resumes_to_the_same_bytes_and_on_no_others(
    toy_world: Path, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = build_recipe(toy_world, shards, checkpoint_every=2, epochs=2)
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    log_step = RunDirectory.log_step

    def stop_here(self: RunDirectory, result: Any) -> None:
        log_step(self, result)
        if result.step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "log_step", stop_here)
        for name in ("cut", "other"):
            with pytest.raises(KeyboardInterrupt):
                pipeline.align(recipe, out=tmp_path / name)
    cut = pipeline.align(recipe, out=tmp_path / "cut", resume=True)
    towers = [(run.path / "tower.safetensors").read_bytes() for run in (cut, whole)]
    assert towers[0] == towers[1]
    extra = {"1.toy.json": [[1.0] * 4], "1.json": {"text": "a star", "split": "train"}}
    write_tar(Path(shards.partition("{")[0] + "000005.tar"), extra)
    with pytest.raises(DataError, match="has changed since it was started"):
        pipeline.align(recipe, out=tmp_path / "other", resume=True)


def test_shards_keep_the_contract_of_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("modalbind_audio")
    monkeypatch.setenv("MODALBIND_PLUGINS", "audio")
    files: dict[str, Any] = {}
    for number in range(3):
        files |= {f"{number}.wav": make_sound(number), f"{number}.txt": f"sound {number}"}
    path = write_tar(tmp_path / "a.tar", files)
    report = check_dataset("webdataset", {"path": str(path)})
    assert [result for result in report.results if result.status != "passed"] == []
