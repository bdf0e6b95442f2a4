"""FLIR ADAS 1.3: `{train,val,video}/{thermal_8_bit,thermal_16_bit,RGB,thermal_annotations.json}`.

Thermal and colour camera stand side by side in a car: their pictures show the same street from
nearly the same place, and are not aligned. Some thermal files have no colour picture. Whole videos
lie in either `train` or `val`, but no file says which frame is of which video. Source: the
publisher's ReadMe of the starter data set, and public code that reads version 1.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_thermal.datasets.classes import class_key, class_texts, read_boxes
from modalbind_thermal.datasets.options import FlirV1Options

FLIR_V1 = Publication(
    "FLIR ADAS 1.3",
    "FLIR ADAS terms of use: research and development",
    "https://www.flir.com/oem/adas/adas-dataset-form/",
)
CLASSES = {1: "person", 2: "bicycle", 3: "car", 18: "dog", 91: "other vehicle"}
"""By category id, from the publisher's ReadMe."""

_SUFFIX = {"thermal_8_bit": ".jpeg", "thermal_16_bit": ".tiff"}


def build(options: FlirV1Options, root: Path | None) -> PairedDataset:
    """Read the annotations; one item per thermal file, with its colour picture.

    Raises:
        ManifestError: If a table is absent or not as published, or no colour picture is there.
    """
    source = PublishedFolder(FLIR_V1, options, root)
    return source.build(_items(source, options), what="pictures")


def _items(source: PublishedFolder, options: FlirV1Options) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        pictures = _list_pictures(source, part)
        boxes = read_boxes(source, f"{part}/thermal_annotations.json", CLASSES)
        for number, (file_name, classes) in enumerate(boxes):
            stem = PurePosixPath(file_name).stem
            if options.needs_picture and stem not in pictures:
                continue
            images = (f"{part}/RGB/{stem}.jpg",) if stem in pictures else ()
            yield PublishedItem(
                key=f"{part}/{options.files}/{stem}{_SUFFIX[options.files]}",
                item_id=f"{part}/{stem}",
                texts=class_texts(classes, options),
                images=images,
                group=_group(part, number, options),
                split=split,
                positive_key=class_key(classes, options),
            )


def _group(part: str, number: int, options: FlirV1Options) -> str:
    if options.block_frames is None:
        return f"flir-adas-1.3-{part}"
    return f"flir-adas-1.3-{part}-{number // options.block_frames}"


def _list_pictures(source: PublishedFolder, part: str) -> set[str]:
    """Return the names of a part's colour pictures, without suffix."""
    stems = {path.stem for path in (source.folder / part / "RGB").glob("*.jpg")}
    if not stems:
        raise source.error(
            f"pictures {part}/RGB/*.jpg asked for",
            f"there is none in {source.folder}",
            f"get them from {source.publication.homepage}, or set `splits` to the parts you have",
        )
    return stems
