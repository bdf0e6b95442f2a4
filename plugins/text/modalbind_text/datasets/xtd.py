"""XTD-11: captions of 1 000 COCO pictures in eleven languages, line by line.

`XTD10/`, `MIC/` (German, French) and `STAIR/` (Japanese) as the project's repository has them; the
pictures are COCO's own, in `train2014/` and `val2014/`. Source: Aggarwal & Kale 2020, "Towards
zero-shot cross-lingual image retrieval" (arXiv 2012.05107).
"""

from __future__ import annotations

from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder
from modalbind_text.datasets.lines import Lines, build_lines
from modalbind_text.datasets.options import XtdOptions

XTD = Publication(
    "XTD-11",
    "captions: see the project's repository; pictures: COCO's terms",
    "https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10",
)
FOLDERS = {"de": "MIC", "fr": "MIC", "ja": "STAIR"}
"""Of languages that others had translated before."""
PUBLISHED_TAGS = {"ja": "jp"}
LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "ko", "pl", "ru", "tr", "zh")


def build(options: XtdOptions, root: Path | None) -> PairedDataset:
    """Read the captions in the languages that are asked for.

    Raises:
        ManifestError: If a file is absent, or they have not the same number of lines.
    """
    files = {
        language: f"{FOLDERS.get(language, 'XTD10')}/test_1kcaptions_"
        f"{PUBLISHED_TAGS.get(language, language)}.txt"
        for language in options.languages or LANGUAGES
    }
    source = PublishedFolder(XTD, options, root)
    lines = Lines(files, "XTD10/test_image_names.txt")

    def locate(name: str) -> str:
        part = "train2014" if "train2014" in name else "val2014"
        return options.image.format(part=part, name=name)

    return build_lines(source, lines, locate)
