"""LLVIP: `infrared/{train,test}/*.jpg`, `visible/{train,test}/*.jpg` and `Annotations/*.xml`.

Both pictures of a pair have one name, and are aligned pixel by pixel. The first two digits of the
name are the place where the camera stood. Infrared pictures are 8-bit counts, saved in colour with
three equal channels: read them with `encoding: counts8, mixes_colours: true`. Annotations are boxes
around people, in the format of Pascal VOC. Source: Jia et al. 2021 (arXiv 2108.10831); layout from
the project's README.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_thermal.datasets.classes import class_key, class_texts
from modalbind_thermal.datasets.options import LlvipOptions

LLVIP = Publication(
    "LLVIP", "LLVIP terms of use: non-commercial", "https://bupt-ai-cz.github.io/LLVIP/"
)
NOBODY = "nobody"
_NAME = re.compile(r"(\d{2})\d{4}")


def build(options: LlvipOptions, root: Path | None) -> PairedDataset:
    """List the infrared pictures, each with its visible one; texts if asked for.

    Raises:
        ManifestError: If a folder, a visible picture or an annotation is absent, or a name is not
            as published.
    """
    source = PublishedFolder(LLVIP, options, root)
    return source.build(_items(source, options), what="pictures")


def _items(source: PublishedFolder, options: LlvipOptions) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        visible = set(_list(source, f"visible/{part}"))
        for name in _list(source, f"infrared/{part}"):
            if name not in visible:
                source.open_path(f"visible/{part}/{name}")  # says where it comes from
            classes = _read_classes(source, name) if options.texts else set()
            yield PublishedItem(
                key=f"infrared/{part}/{name}",
                item_id=name,
                texts=class_texts(classes, options, nothing=NOBODY),
                images=(f"visible/{part}/{name}",),
                group=f"llvip-{_place(source, name)}",
                split=split,
                positive_key=(class_key(classes, options) or NOBODY) if options.texts else "",
                columns={"class": "person" if classes else NOBODY} if options.texts else {},
            )


def _list(source: PublishedFolder, folder: str) -> list[str]:
    """Return the names of a folder's pictures, in order."""
    names = sorted(path.name for path in (source.folder / folder).glob("*.jpg"))
    if not names:
        raise source.error(
            f"pictures {folder}/*.jpg asked for",
            f"there is none in {source.folder}",
            f"get them from {source.publication.homepage}, or set `splits` to the parts you have",
        )
    return names


def _place(source: PublishedFolder, name: str) -> str:
    match = _NAME.match(name)
    if match is None:
        raise source.error(
            f"the place of picture '{name}' asked for",
            "its name does not begin with six digits",
            "keep the published names",
        )
    return match[1]


def _read_classes(source: PublishedFolder, name: str) -> set[str]:
    file = f"Annotations/{Path(name).stem}.xml"
    try:
        tree = ElementTree.parse(source.open_path(file))
    except ElementTree.ParseError as error:
        raise source.error(
            f"annotation {file} asked for",
            f"it is not XML ({error})",
            f"get it anew from {source.publication.homepage}",
        ) from error
    return {text for node in tree.iterfind("object/name") if (text := (node.text or "").strip())}
