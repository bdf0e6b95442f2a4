"""Multi30K, task 1: one caption of each Flickr30K picture in English, German, French and Czech.

`data/task1/raw/` and `data/task1/image_splits/` as the project's repository has them; pictures are
Flickr30K's. Source: Elliott et al. 2016, "Multi30K: Multilingual English-German image descriptions"
(arXiv 1605.00459).
"""

from __future__ import annotations

from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder
from modalbind_text.datasets.lines import Lines, build_lines
from modalbind_text.datasets.options import Multi30kOptions

MULTI30K = Publication(
    "Multi30K",
    "captions: see the project's repository; pictures: Flickr30K's terms (research)",
    "https://github.com/multi30k/dataset",
)
SPLITS = {"test_2016_flickr": "test", "val": "val", "train": "train"}


def build(options: Multi30kOptions, root: Path | None) -> PairedDataset:
    """Read one part in the languages that are asked for.

    Raises:
        ManifestError: If a file is absent, or they have not the same number of lines.
    """
    source = PublishedFolder(MULTI30K, options, root)
    files = {
        language: f"data/task1/raw/{options.part}.{language}" for language in options.languages
    }
    names = f"data/task1/image_splits/{options.part}.txt"
    lines = Lines(files, names, SPLITS[options.part])
    # The list of a part may have more than the file's name on a line.
    return build_lines(
        source, lines, lambda name: options.image.format(name=name.split("#")[0].strip())
    )
