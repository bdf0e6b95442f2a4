"""NYU Depth v2, the labelled part: `nyu_depth_v2_labeled.mat` and `splits.mat`.

One file holds all maps, pictures and kinds of scene; a sample's key is the file and its number,
counted from 1 as MATLAB does. Source: Silberman, Hoiem, Kohli and Fergus, Indoor Segmentation and
Support Inference from RGBD Images, ECCV 2012; layout from the project's page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modalbind.api import (
    AnchorItem,
    BrokenSampleError,
    Modality,
    Pair,
    PairedDataset,
    Publication,
    PublishedFolder,
    PublishedItem,
    label_texts,
)
from modalbind_depth.datasets.matlab import open_hdf5, read_texts, read_variables
from modalbind_depth.datasets.texts import TEMPLATES
from modalbind_depth.options import NyuOptions
from modalbind_depth.sample import DepthSample, build_sample

NYU = Publication(
    "NYU Depth v2",
    "none stated on its page",
    "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
)
FILE = "nyu_depth_v2_labeled.mat"
SPLITS_FILE = "splits.mat"

FOCAL_PX = 518.858
"""Of the colour camera, onto whose view the maps are projected: fx_rgb of the project's toolbox,
camera_params.m."""

COMMON_SCENES = (
    "bathroom",
    "bedroom",
    "bookstore",
    "classroom",
    "dining_room",
    "home_office",
    "kitchen",
    "living_room",
    "office",
)
"""The nine most common of its 27 kinds of scene; with `other` they are the ten classes of Gupta,
Girshick, Arbelaez and Malik, IJCV 2015, and of those who classify since."""

OTHER = "other"


def build(options: NyuOptions, root: Path | None) -> PairedDataset:
    """Read kinds of scene and the split; `positive_key` and column `class` = the kind of scene.

    Groups are the recordings. Numbers that `splits.mat` does not name are left out.

    Raises:
        InputError: If h5py or scipy is missing.
        ManifestError: If a file is absent or not as published.
    """
    source = PublishedFolder(NYU, options, root)
    splits = _read_splits(source)
    maps = NyuFile(
        source.open_path(FILE),
        "depths" if options.depths == "filled" else "rawDepths",
        options.baseline_m,
    )
    kinds, recordings = _read_scenes(source, maps)
    if len(kinds) != len(recordings) or max(splits, default=0) > len(kinds):
        raise source.error(
            f"the split of {SPLITS_FILE} asked for",
            f"it goes to {max(splits, default=0)}, {FILE} has {len(kinds)} kinds of scene and "
            f"{len(recordings)} recordings",
            f"get both anew from {NYU.homepage}",
        )
    items = _items(options, splits, kinds, recordings)
    files = source.build(items, what="maps", load=maps.load, hash=maps.hash)
    return NyuDataset(files, maps)


@dataclass(frozen=True)
class NyuFile:
    """The file of maps and pictures; opened for each reading, so it goes to worker processes.

    Attributes:
        path: Where it lies.
        variable: Array of the maps.
        baseline_m: Of the camera.
    """

    path: Path
    variable: str
    baseline_m: float

    def load(self, key: str, modality: Modality) -> DepthSample:
        """Return a map in metres; what is zero in the file was not measured."""
        metres = self.read(self.variable, key).T  # (width, height) in the file
        return build_sample(metres, key, focal_px=FOCAL_PX, baseline_m=self.baseline_m)

    def hash(self, key: str, modality: Modality) -> bytes:
        """Hash a map's numbers and its camera."""
        metres = self.read(self.variable, key)
        digest = hashlib.sha256(f"{metres.dtype}{metres.shape}".encode())
        digest.update(metres.tobytes())
        digest.update(repr((FOCAL_PX, self.baseline_m)).encode())
        return digest.digest()

    def open_picture(self, key: str) -> Image.Image:
        """Return the picture beside a map, RGB."""
        colours = self.read("images", key)  # (3, width, height) in the file
        return Image.fromarray(np.ascontiguousarray(colours.transpose(2, 1, 0)), "RGB")

    def hash_picture(self, key: str) -> bytes:
        """Hash the pixels of the picture beside a map."""
        return hashlib.sha256(self.read("images", key).tobytes()).digest()

    def read(self, variable: str, key: str) -> NDArray[Any]:
        """Return one element of an array of the file, as it lies there.

        Raises:
            BrokenSampleError: If there is no such element, or the file cannot be read.
        """
        number = key.rpartition("#")[2]
        try:
            with open_hdf5(self.path) as file:
                return np.asarray(file[variable][int(number) - 1])
        except (OSError, KeyError, IndexError, ValueError) as error:
            reason = "undecodable" if self.path.is_file() else "missing"
            raise BrokenSampleError(reason, f"{self.path}, {variable} {number}: {error}") from error


@dataclass(frozen=True)
class NyuDataset:
    """Maps of one file, with the pictures that lie in the same file."""

    files: Any
    maps: NyuFile

    @property
    def name(self) -> str:
        """Name in the report."""
        return str(self.files.name)

    @property
    def licence(self) -> str:
        """Licence of the data."""
        return str(self.files.licence)

    @property
    def root(self) -> Path:
        """Folder of the file."""
        return self.maps.path.parent

    def pairs(self) -> Sequence[Pair]:
        """Return all rows, in the order of the file."""
        return tuple(self.files.pairs())

    def load_sample(self, key: str, modality: Modality) -> Any:
        """Return a map."""
        return self.files.load_sample(key, modality)

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        """Return 32 bytes that identify a map."""
        return bytes(self.files.sample_hash(key, modality))

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        """Return a text, or the picture beside the map of that key."""
        if modality != "image":
            item: AnchorItem = self.files.anchor_item(modality, key, language)
            return item
        return AnchorItem(key, self.maps.hash_picture(key), partial(self.maps.open_picture, key))


def _read_splits(source: PublishedFolder) -> dict[int, str]:
    """Return the split of each number, in rising order."""
    found = read_variables(source, SPLITS_FILE, ("trainNdxs", "testNdxs"))
    splits = {int(number): "train" for number in found["trainNdxs"].ravel()}
    splits |= {int(number): "test" for number in found["testNdxs"].ravel()}
    return dict(sorted(splits.items()))


def _read_scenes(source: PublishedFolder, maps: NyuFile) -> tuple[list[str], list[str]]:
    """Return kinds of scene and recordings, and refuse a file that lacks what is read later."""
    try:
        with open_hdf5(maps.path) as file:
            for variable in ("images", maps.variable):
                if variable not in file:
                    raise KeyError(f"no '{variable}'")
            return read_texts(file, "sceneTypes"), read_texts(file, "scenes")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise source.error(
            f"file {FILE} asked for",
            f"it is not as published ({error})",
            f"get it anew from {NYU.homepage}",
        ) from error


def _items(
    options: NyuOptions, splits: dict[int, str], kinds: list[str], recordings: list[str]
) -> Iterator[PublishedItem]:
    for number, split in splits.items():
        key = f"{FILE}#{number}"
        kind = kinds[number - 1]
        if options.scenes == "ten" and kind not in COMMON_SCENES:
            kind = OTHER
        texts = ("an indoor scene",) if kind == OTHER else None
        yield PublishedItem(
            key=key,
            item_id=str(number),
            texts=texts or label_texts(kind, options.templates or TEMPLATES),
            images=(key,) if options.images else (),
            group=f"NYU Depth v2:{recordings[number - 1]}",
            split=options.split or split,
            positive_key=kind,
            columns={"class": kind, "scene": kinds[number - 1]},
        )
