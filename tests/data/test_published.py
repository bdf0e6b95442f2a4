"""What adapters of published data sets share, through one made-up adapter of a captioned set."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from PIL import Image
from pydantic import ValidationError

from modalbind.data.files import FileDataset
from modalbind.data.options import LabelledOptions, PublishedOptions, path_pattern
from modalbind.data.published import (
    Publication,
    PublishedFolder,
    PublishedItem,
    check_key,
    label_texts,
)
from modalbind.data.samples import group_pairs
from modalbind.errors import AnchorError, ManifestError
from modalbind.interfaces import PairedDataset

HOME = "https://example.org/peaks"
PEAKS = Publication("Peaks", "CC BY 4.0", HOME)
TABLE = "id,caption\nmatterhorn,A steep peak.\neiger,A dark wall.\n"

Write = Callable[..., Path]


class PeaksOptions(PublishedOptions):
    scan: Annotated[str, path_pattern("id", "part")] = "scans/{id}.ply"


class Spy:
    """Says which file it was asked for."""

    def load(self, path: Path, key: str) -> Any:
        return path, key

    def content_hash(self, path: Path, key: str) -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()


SPY: Any = Spy()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_text(name: str, text: str = "-") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write_text


def build(root: Path | None, **options: Any) -> FileDataset:
    """Read `train.csv`, and `test.csv` if there is one."""
    parsed = PeaksOptions(**options)
    source = PublishedFolder(PEAKS, parsed, root)
    parts = ["train", "test"] if source.has("test.csv") else ["train"]
    return source.build(
        PublishedItem(
            key=parsed.scan.format(id=row["id"], part=part),
            item_id=row["id"],
            texts=(row["caption"],),
            group=row["id"].removesuffix("-north"),
            split=part,
        )
        for part in parts
        for row in source.read_csv(f"{part}.csv", ("id", "caption"))
    )


def build_items(root: Path, *items: PublishedItem, **hooks: Any) -> FileDataset:
    options = hooks.pop("options", PublishedOptions())
    return PublishedFolder(PEAKS, options, root).build(items, **hooks)


def test_rows_by_hand(tmp_path: Path, write: Write) -> None:
    write("train.csv", TABLE)
    dataset = build(tmp_path, language="rm")
    assert isinstance(dataset, PairedDataset)
    assert (dataset.name, dataset.licence, dataset.root) == ("Peaks", "CC BY 4.0", tmp_path)
    assert [
        (p.sample, p.text, p.language, p.image, p.split, p.fold, p.group, p.positive_key, p.columns)
        for p in dataset.pairs()
    ] == [
        (f"scans/{name}.ply", text, "rm", None, "train", "", name, f"Peaks:scans/{name}.ply", {})
        for name, text in (("matterhorn", "A steep peak."), ("eiger", "A dark wall."))
    ]


def test_workers_can_have_it_and_it_reads_below_its_folder(tmp_path: Path, write: Write) -> None:
    write("set/train.csv", TABLE)
    path = write("set/scans/eiger.ply", "points")
    dataset = pickle.loads(pickle.dumps(build(tmp_path, folder="set")))
    assert dataset == build(tmp_path, folder="set")
    assert dataset.load_sample("scans/eiger.ply", SPY) == (path, "scans/eiger.ply")
    expected = hashlib.sha256(b"points").digest()
    assert dataset.sample_hash("scans/eiger.ply", SPY) == expected


def test_missing_table_names_the_file_and_its_home(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        build(tmp_path)
    assert str(caught.value) == (
        f"Peaks: file train.csv asked for; it is not in {tmp_path}; get it from {HOME}"
    )


def test_missing_folder_and_missing_root_are_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"no such folder; get the data set from {HOME}"):
        build(tmp_path, folder="nowhere")
    with pytest.raises(ManifestError, match="none given; give --root"):
        build(None)


def test_folder_is_below_the_root_or_absolute(tmp_path: Path, write: Write) -> None:
    write("sets/peaks/train.csv", TABLE)
    below = build(tmp_path, folder="sets/peaks")
    assert below.pairs() == build(None, folder=str(tmp_path / "sets/peaks")).pairs()


def test_missing_column_is_named(tmp_path: Path, write: Write) -> None:
    write("train.csv", "id,text\neiger,A dark wall.\n")
    expected = r"column 'caption' asked of train\.csv; it has id, text; use the file as"
    with pytest.raises(ManifestError, match=expected):
        build(tmp_path)


@pytest.mark.parametrize("line", ["eiger", "eiger,A dark,wall"])
def test_ragged_line_is_named(tmp_path: Path, write: Write, line: str) -> None:
    write("train.csv", f"id,caption\nmonch,A peak.\n{line}\n")
    with pytest.raises(ManifestError, match="line 3 has too few or too many cells"):
        build(tmp_path)


def test_empty_table_and_wrong_encoding_are_refused(tmp_path: Path, write: Write) -> None:
    path = write("train.csv", "")
    with pytest.raises(ManifestError, match="it has none"):
        build(tmp_path)
    path.write_bytes(b"id,caption\nm\xf6nch,A peak.\n")
    with pytest.raises(ManifestError, match="utf-8"):
        build(tmp_path)
    path.write_text("id,caption\n")
    with pytest.raises(ManifestError, match=r"samples below .* asked for; none is left"):
        build(tmp_path)


def test_tables_with_semicolons_without_header_or_in_other_encodings(
    tmp_path: Path, write: Write
) -> None:
    source = PublishedFolder(PEAKS, PublishedOptions(), tmp_path)
    write("a.csv", "id;height, m;wall\neiger;3967;north\n")
    assert list(source.read_csv("a.csv", ("id",))) == [
        {"id": "eiger", "height, m": "3967", "wall": "north"}
    ]
    write("b.csv", '"eiger, north",3967\n')
    rows = source.read_csv("b.csv", ("id", "height"), header=False)
    assert list(rows) == [{"id": "eiger, north", "height": "3967"}]
    write("b.csv", "\ufeffid\neiger\n")
    assert list(source.read_csv("b.csv", ("id",))) == [{"id": "eiger"}]
    write("c.csv", "").write_bytes(b"id\nm\xf6nch\n")
    assert list(source.read_csv("c.csv", ("id",), encoding="latin-1")) == [{"id": "mönch"}]


def test_json_that_is_none_is_named(tmp_path: Path, write: Write) -> None:
    source = PublishedFolder(PEAKS, PublishedOptions(), tmp_path)
    write("a.json", '\ufeff{"eiger": 3967}')
    assert source.read_json("a.json") == {"eiger": 3967}
    write("a.json", "version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError, match=r"Peaks: file a\.json asked for; it is not JSON .*LFS"):
        source.read_json("a.json")
    with pytest.raises(ManifestError, match=r"file b\.json asked for"):
        source.read_json("b.json")


@pytest.mark.parametrize("key", ["../x.ply", "a/../../x.ply", "/etc/passwd", "", ".", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, write: Write, key: str) -> None:
    with pytest.raises(ManifestError, match=r"here: path .* does not stay inside"):
        check_key(key, "here")
    source = PublishedFolder(PEAKS, PublishedOptions(), tmp_path)
    for use in (source.has, source.open_path, source.read_json):
        with pytest.raises(ManifestError, match="does not stay inside"):
            use(key)
    for item in (
        PublishedItem(key=key, item_id="1", texts=("a",)),
        PublishedItem(key="1.ply", item_id="1", images=("1.png", key)),
    ):
        with pytest.raises(ManifestError, match="does not stay inside the data set's folder"):
            source.build([item])


def test_names_with_dots_stay_inside() -> None:
    check_key("a..b/..c/d...ply", "here")


def test_a_link_cannot_lead_outside(tmp_path: Path, write: Write) -> None:
    write("elsewhere/eiger.ply")
    write("set/train.csv", TABLE)
    (tmp_path / "set/scans").symlink_to(tmp_path / "elsewhere")
    dataset = build(tmp_path, folder="set")
    with pytest.raises(ManifestError, match=r"outside .*copy what a link leads to"):
        dataset.load_sample("scans/eiger.ply", SPY)
    (tmp_path / "set/train.csv").rename(tmp_path / "train.csv")
    (tmp_path / "set/train.csv").symlink_to(tmp_path / "train.csv")
    with pytest.raises(ManifestError, match=r"outside .*copy what a link leads to"):
        build(tmp_path, folder="set")


def test_links_inside_and_a_root_that_is_one_are_fine(tmp_path: Path, write: Write) -> None:
    write("real/tables/train.csv", TABLE)
    (tmp_path / "data").symlink_to(tmp_path / "real")
    (tmp_path / "real/train.csv").symlink_to(tmp_path / "real/tables/train.csv")
    assert len(build(tmp_path, folder="data").pairs()) == 2


def test_what_has_no_text_or_file_is_left_out_and_counted(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("train.csv", TABLE + "monch,\n")
    write("scans/eiger.ply")
    assert [p.text for p in build(tmp_path).pairs()] == ["A steep peak.", "A dark wall."]
    assert caplog.messages == ["Peaks: 1 of 3 samples left out: neither text nor picture"]
    existing = build(tmp_path, only_existing=True)
    assert [pair.sample for pair in existing.pairs()] == ["scans/eiger.ply"]
    assert "Peaks: 1 of 3 samples left out: no file" in caplog.messages


def test_a_group_in_two_parts_stays_in_the_later_one(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("train.csv", TABLE)
    write("test.csv", "id,caption\neiger-north,A dark north face.\n")
    assert [(p.text, p.split) for p in build(tmp_path).pairs()] == [
        ("A steep peak.", "train"),
        ("A dark north face.", "test"),
    ]
    assert caplog.messages == ["Peaks: 1 of 3 samples left out: its group is also in a later split"]


def test_later_parts_win_whatever_the_order_of_the_items(tmp_path: Path) -> None:
    items = [
        PublishedItem(key=f"{split}.ply", item_id=split, texts=("a",), group="g", split=split)
        for split in ("val", "test", "train")
    ]
    assert [pair.split for pair in build_items(tmp_path, *items).pairs()] == ["test"]
    items.pop(1)
    assert [pair.split for pair in build_items(tmp_path, *items).pairs()] == ["val"]


def test_items_without_a_group_stand_alone(tmp_path: Path) -> None:
    dataset = build_items(
        tmp_path,
        PublishedItem(key="1.ply", item_id="1", texts=("a",), split="train"),
        PublishedItem(key="2.ply", item_id="2", texts=("b",), split="test"),
    )
    # Named after the data set: another's 1.ply may be tested on.
    assert [(p.split, p.group) for p in dataset.pairs()] == [
        ("train", "Peaks:1.ply"),
        ("test", "Peaks:2.ply"),
    ]


def test_the_word_for_samples_is_the_adapters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silent = PublishedItem(key="1.ply", item_id="1")
    with pytest.raises(ManifestError, match=r"scans below .* none is left; .* leave scans out"):
        build_items(tmp_path, silent, what="scans")
    assert "1 of 1 scans left out" in caplog.text


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    item = PublishedItem(key="1.ply", item_id="one", texts=("a",), split="dev")
    with pytest.raises(
        ManifestError, match="split 'dev' asked for 'one'; splits are test, val, tr"
    ):
        build_items(tmp_path, item)


@pytest.mark.parametrize(
    ("texts", "images", "rows"),
    [
        (("a", "", "b"), (), [("a", None), ("b", None)]),
        (("a", "b"), ("1.png",), [("a", "1.png"), ("b", "1.png")]),
        ((), ("1.png", "2.png"), [(None, "1.png"), (None, "2.png")]),
        (("",), ("1.png",), [(None, "1.png")]),
        (("a",), ("1.png", "2.png"), [("a", "1.png"), ("a", "2.png")]),
        (
            ("a", "b"),
            ("1.png", "2.png", "3.png"),
            [("a", "1.png"), ("b", "2.png"), ("a", "3.png")],
        ),
    ],
)
def test_texts_and_pictures_make_rows_that_lose_and_double_none(
    tmp_path: Path, texts: Any, images: Any, rows: Any
) -> None:
    item = PublishedItem(key="x.ply", item_id="x", texts=texts, images=images, positive_key="peak")
    pairs = build_items(tmp_path, item).pairs()
    assert [(pair.text, pair.image) for pair in pairs] == rows
    (sample,) = group_pairs(pairs, 0)
    assert [caption.text for caption in sample.captions] == [text for text in texts if text]
    assert sample.images == tuple((image, "peak") for image in images)


def test_pictures_are_opened_below_the_folder(tmp_path: Path, write: Write) -> None:
    write("set/x.ply")
    Image.new("RGB", (2, 2), "red").save(tmp_path / "set/x.png")
    Image.new("RGB", (2, 2), "red").save(tmp_path / "out.png")
    (tmp_path / "set/away.png").symlink_to(tmp_path / "out.png")
    item = PublishedItem(key="x.ply", item_id="x", images=("x.png", "away.png"))
    dataset = build_items(tmp_path, item, options=PublishedOptions(folder="set"))
    picture = pickle.loads(pickle.dumps(dataset.anchor_item("image", "x.png")))
    assert (picture.key, picture.load().getpixel((1, 1))) == ("x.png", (255, 0, 0))
    with pytest.raises(ManifestError, match="outside"):
        dataset.anchor_item("image", "away.png")
    with pytest.raises(AnchorError, match="'depth' asked of data set Peaks"):
        dataset.anchor_item("depth", "x.png")


def load_part(path: Path, key: str, modality: Any) -> Any:
    """Return one line of a file: sample `peaks.txt#1` is its second."""
    name, _, number = key.partition("#")
    return modality, (path / name).read_text().splitlines()[int(number)]


def hash_part(path: Path, key: str, modality: Any) -> bytes:
    return hashlib.sha256(load_part(path, key, modality)[1].encode()).digest()


def test_samples_may_be_parts_of_one_file(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("peaks.txt", "matterhorn\neiger\n")
    items = [
        PublishedItem(key=f"{name}#{number}", item_id=str(number), texts=("a peak",))
        for name in ("peaks.txt", "absent.txt")
        for number in range(2)
    ]
    dataset = build_items(
        tmp_path,
        *items,
        options=PublishedOptions(only_existing=True),
        load=partial(load_part, tmp_path),
        hash=partial(hash_part, tmp_path),
    )
    assert "2 of 4 samples left out: no file" in caplog.text
    assert [pair.sample for pair in dataset.pairs()] == ["peaks.txt#0", "peaks.txt#1"]
    dataset = pickle.loads(pickle.dumps(dataset))
    assert dataset.load_sample("peaks.txt#1", SPY) == (SPY, "eiger")
    assert dataset.sample_hash("peaks.txt#1", SPY) == hashlib.sha256(b"eiger").digest()


def test_without_a_loader_a_number_sign_is_part_of_the_name(tmp_path: Path, write: Write) -> None:
    write("a#1.ply")
    write("b")
    dataset = build_items(
        tmp_path,
        PublishedItem(key="a#1.ply", item_id="a", texts=("a",)),
        PublishedItem(key="b#1.ply", item_id="b", texts=("b",)),
        options=PublishedOptions(only_existing=True),
    )
    assert [pair.sample for pair in dataset.pairs()] == ["a#1.ply"]


@pytest.mark.parametrize("name", ["load", "hash"])
def test_a_loader_comes_with_a_hash(tmp_path: Path, name: str) -> None:
    item = PublishedItem(key="1", item_id="1", texts=("a",))
    with pytest.raises(ValueError, match="both or neither"):
        build_items(tmp_path, item, **{name: lambda key, modality: b""})


def test_similarity_is_joined_by_id_or_path(tmp_path: Path, write: Write) -> None:
    write("train.csv", TABLE)
    write("sim.csv", "key,similarity\nmatterhorn,0.25\nscans/eiger.ply,-0.5\n")
    pairs = build(tmp_path, similarity_file="sim.csv").pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["0.25", "-0.5"]


def test_missing_similarity_is_named_or_defaulted(tmp_path: Path, write: Write) -> None:
    write("train.csv", TABLE)
    write("sim.csv", "key,similarity\nmatterhorn,0.25\n")
    expected = r"similarity of 'eiger' asked for; sim\.csv has neither it nor 'scans/eiger\.ply'"
    with pytest.raises(ManifestError, match=expected):
        build(tmp_path, similarity_file="sim.csv")
    pairs = build(tmp_path, similarity_file="sim.csv", similarity_default=0.0).pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["0.25", "0.0"]
    pairs = build(tmp_path, similarity_default=1.0).pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["1.0", "1.0"]
    assert all("similarity" not in pair.columns for pair in build(tmp_path).pairs())


@pytest.mark.parametrize("value", ["nan", "1.5", "high", ""])
def test_similarity_that_is_none_is_refused(tmp_path: Path, write: Write, value: str) -> None:
    write("train.csv", TABLE)
    write("sim.csv", f"key,similarity\nmatterhorn,{value}\n")
    with pytest.raises(ManifestError, match="write a number from -1 to 1"):
        build(tmp_path, similarity_file="sim.csv")


@pytest.mark.parametrize(
    "pattern", ["{title}.ply", "{id.__class__}", "{id[0]}", "{id:>99}", "{id!r}", "{}", "{0}"]
)
def test_patterns_take_plain_known_names_only(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"use plain \{id\}, \{part\}"):
        PeaksOptions(scan=pattern)


@pytest.mark.parametrize("pattern", ["{id", "id}.ply", "{id:{part}}"])
def test_patterns_with_stray_braces_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="scan"):
        PeaksOptions(scan=pattern)


def test_patterns_with_doubled_braces_and_known_names_pass() -> None:
    assert PeaksOptions(scan="{part}/{{x}}/{id}").scan.format(id=7, part="a") == "a/{x}/7"


def test_templates_need_a_label_and_are_filled() -> None:
    with pytest.raises(ValidationError, match=r"template 'a peak' lacks \{label\}"):
        LabelledOptions(templates=("a peak",))
    assert label_texts("north_face", ["{label}!", "see {label}"]) == (
        "north face!",
        "see north face",
    )


def test_every_shared_option_is_described() -> None:
    for model in (PublishedOptions, LabelledOptions):
        assert all(field.description for field in model.model_fields.values())
