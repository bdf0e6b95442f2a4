"""SUN RGB-D: `SUNRGBD/<camera>/.../` and `SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat`.

Each sample has a folder with `depth/*.png`, `depth_bfx/*.png` (holes filled), `image/*.jpg`,
`intrinsics.txt` and `scene.txt`. Source: Song, Lichtenberg and Xiao, SUN RGB-D: A RGB-D Scene
Understanding Benchmark Suite, CVPR 2015; layout from the project's README.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import cast

from modalbind.api import (
    BrokenSampleError,
    Modality,
    PairedDataset,
    Publication,
    PublishedFolder,
    PublishedItem,
    label_texts,
)
from modalbind_depth.datasets.matlab import read_variables
from modalbind_depth.datasets.texts import TEMPLATES
from modalbind_depth.options import Sensor, SunRgbdOptions
from modalbind_depth.sample import DepthSample, read_depth

SUN_RGBD = Publication("SUN RGB-D", "none stated on its page", "https://rgbd.cs.princeton.edu")
SPLIT_FILE = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
TOP = "SUNRGBD"

COMMON_SCENES = (
    "bathroom",
    "bedroom",
    "classroom",
    "computer_room",
    "conference_room",
    "corridor",
    "dining_area",
    "dining_room",
    "discussion_area",
    "furniture_store",
    "home_office",
    "kitchen",
    "lab",
    "lecture_theatre",
    "library",
    "living_room",
    "office",
    "rest_space",
    "study_space",
)
"""The kinds of scene with more than 80 samples, which its authors classify."""

MAX_PIXELS = 2**24
"""Its own maps have less than half a million."""

UNNAMED = "idk"
"""Kind of scene of samples that nobody could name."""


def build(options: SunRgbdOptions, root: Path | None) -> PairedDataset:
    """Read the split, then each sample's folder; `positive_key` and column `class` = its scene.

    Groups are recordings: of SUN3D's the place, else the sample's own folder.

    Raises:
        InputError: If scipy is missing.
        ManifestError: If a file is absent or not as published.
    """
    source = PublishedFolder(SUN_RGBD, options, root)
    splits = _read_splits(source)
    items = (
        item
        for folder, split in splits.items()
        if (item := _read_item(source, options, folder, split)) is not None
    )
    reader = SunRgbdReader(source, options)
    return source.build(items, what="maps", load=reader.load, hash=reader.hash)


class SunRgbdReader:
    """Reads maps with the encoding that SUN RGB-D has, and each one's own camera."""

    def __init__(self, source: PublishedFolder, options: SunRgbdOptions) -> None:
        """Open nothing yet."""
        self.source = source
        self.options = options

    def load(self, key: str, modality: Modality) -> DepthSample:
        """Return a map in metres, with its focal length and the baseline of its camera."""
        return read_depth(
            self._find(key),
            "sunrgbd",
            max_pixels=MAX_PIXELS,
            focal_px=self._read_focal(key),
            baseline_m=self._baseline_m(key),
        )

    def hash(self, key: str, modality: Modality) -> bytes:
        """Hash a map's bytes and its camera."""
        digest = hashlib.sha256(self._find(key).read_bytes())
        camera = (self._read_focal(key), self._baseline_m(key))
        digest.update(repr(("sunrgbd", camera)).encode())
        return digest.digest()

    def _baseline_m(self, key: str) -> float | None:
        return self.options.baselines_m.get(cast(Sensor, PurePosixPath(key).parts[1]))

    def _read_focal(self, key: str) -> float:
        """Return the focal length in pixels: first number of `intrinsics.txt`, a 3 by 3 matrix."""
        name = f"{PurePosixPath(key).parent.parent}/intrinsics.txt"
        try:
            focal_px = float(self._find(name).read_text("utf-8").split()[0])
        except (IndexError, ValueError) as error:
            raise BrokenSampleError("undecodable", f"{name}: no matrix of numbers") from error
        if not 0 < focal_px < float("inf"):
            raise BrokenSampleError("undecodable", f"{name}: focal length {focal_px}")
        return focal_px

    def _find(self, name: str) -> Path:
        if not self.source.has(name):
            raise BrokenSampleError("missing", f"no file at {self.source.folder / name}")
        return self.source.open_path(name)


def _read_splits(source: PublishedFolder) -> dict[str, str]:
    """Return the split of each sample's folder, as published: training first."""
    found = read_variables(source, SPLIT_FILE, ("alltrain", "alltest"))
    splits: dict[str, str] = {}
    for variable, split in (("alltrain", "train"), ("alltest", "test")):
        for cell in found[variable].ravel():
            # A path on the authors' machine; what follows SUNRGBD/ is the folder that is published.
            path = str(cell.item() if hasattr(cell, "item") else cell)
            _, top, below = path.partition(f"/{TOP}/")
            if not top:
                raise source.error(
                    f"folders of {SPLIT_FILE} asked for",
                    f"'{path}' is not below {TOP}",
                    f"get it anew from {SUN_RGBD.homepage}",
                )
            splits["/".join([TOP, *filter(None, below.split("/"))])] = split
    return splits


def _read_item(
    source: PublishedFolder, options: SunRgbdOptions, folder: str, split: str
) -> PublishedItem | None:
    """Return the sample of a folder; None if the options leave it out."""
    parts = folder.split("/")
    if parts[1] not in options.sensors or (not options.include_nyu and parts[2:3] == ["NYUdata"]):
        return None
    if options.only_existing and not source.has(f"{folder}/scene.txt"):
        return None
    scene = source.open_path(f"{folder}/scene.txt").read_text("utf-8").strip()
    known = scene in COMMON_SCENES if options.scenes == "nineteen" else scene not in ("", UNNAMED)
    if not known:
        return None
    depth = "depth_bfx" if options.depths == "refined" else "depth"
    return PublishedItem(
        key=_only_file(source, f"{folder}/{depth}", ".png"),
        item_id=folder,
        texts=label_texts(scene, options.templates or TEMPLATES),
        images=(_only_file(source, f"{folder}/image", ".jpg"),) if options.images else (),
        group=f"SUN RGB-D:{_recording(parts)}",
        split=options.split or split,
        positive_key=scene,
        columns={"class": scene, "sensor": parts[1]},
    )


def _recording(parts: list[str]) -> str:
    """SUN3D's frames lie below place and video; all other folders are one capture each."""
    return "/".join(parts[1:4] if parts[2] == "sun3ddata" else parts[1:])


def _only_file(source: PublishedFolder, folder: str, suffix: str) -> str:
    where = source.folder / folder
    names = sorted(path.name for path in where.glob(f"*{suffix}")) if where.is_dir() else []
    if len(names) != 1:
        raise source.error(
            f"one {suffix} file in {folder} asked for",
            f"there are {len(names)}",
            f"get the sample anew from {SUN_RGBD.homepage}",
        )
    return f"{folder}/{names[0]}"
