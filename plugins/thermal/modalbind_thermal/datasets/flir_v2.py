"""FLIR ADAS 2: `images_thermal_{train,val}`, `video_{thermal,rgb}_test`, each with `coco.json`.

Only the frames of the video part are paired with colour pictures, by `rgb_to_thermal_vid_map.json`;
the colour pictures of the image parts are of other moments, and are not read. The 16-bit files in
`analyticsData` were recorded in the camera's T-linear mode. Source: the publisher's README of
version 2.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_thermal.datasets.classes import class_key, class_texts, read_boxes
from modalbind_thermal.datasets.options import FlirV2Options

FLIR_V2 = Publication(
    "FLIR ADAS 2",
    "FLIR ADAS terms of use: research and development",
    "https://adas-dataset-v2.flirconservator.com/",
)
VIDEO_MAP = "rgb_to_thermal_vid_map.json"
_FOLDERS = {
    "images_train": "images_thermal_train",
    "images_val": "images_thermal_val",
    "video_test": "video_thermal_test",
}
_FRAME = re.compile(r"video-(?P<video>[A-Za-z0-9]+)-frame-(?P<frame>\d+)")


def build(options: FlirV2Options, root: Path | None) -> PairedDataset:
    """Read the annotations; one item per thermal file, with its colour picture if it has one.

    Raises:
        ManifestError: If a table is absent or not as published.
    """
    source = PublishedFolder(FLIR_V2, options, root)
    return source.build(_items(source, options), what="pictures")


def _items(source: PublishedFolder, options: FlirV2Options) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        folder = _FOLDERS[part]
        pictures = _read_map(source) if part == "video_test" else {}
        for file_name, classes in read_boxes(source, f"{folder}/coco.json"):
            name = PurePosixPath(file_name).name
            video, frame = _parse(source, name)
            if part == "video_test" and frame % options.every_frames:
                continue
            is_raw = options.files == "analyticsData"
            stored = f"{PurePosixPath(name).stem}.tiff" if is_raw else name
            yield PublishedItem(
                key=f"{folder}/{options.files}/{stored}",
                item_id=name,
                texts=class_texts(classes, options),
                images=(f"video_rgb_test/data/{pictures[name]}",) if name in pictures else (),
                group=f"flir-{video}",
                split="" if split == "by_group" else split,
                positive_key=class_key(classes, options),
            )


def _read_map(source: PublishedFolder) -> Mapping[str, str]:
    """Return the colour frame of each thermal frame."""
    content = source.read_json(VIDEO_MAP)
    is_map = isinstance(content, dict) and all(isinstance(name, str) for name in content.values())
    if not is_map:
        raise source.error(
            f"pairs of {VIDEO_MAP} asked for",
            "it is not a map from file names to file names",
            f"get it anew from {source.publication.homepage}",
        )
    return {thermal: colour for colour, thermal in content.items()}


def _parse(source: PublishedFolder, name: str) -> tuple[str, int]:
    """Return video and frame number, which stand in the name of a file."""
    match = _FRAME.match(name)
    if match is None:
        raise source.error(
            f"the video of picture '{name}' asked for",
            "its name is not video-ID-frame-NUMBER-ID",
            "keep the published names",
        )
    return match["video"], int(match["frame"])
