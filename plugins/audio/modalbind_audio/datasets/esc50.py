"""ESC-50 and its free subset ESC-10: `meta/esc50.csv` and `audio/*.wav`.

Folds 1 to 5 never share a source recording. Source: K. J. Piczak, ESC: Dataset for
Environmental Sound Classification, ACM Multimedia 2015; layout from the project's README.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem, label_texts
from modalbind_audio.datasets.options import TEMPLATES, Esc50Options

ESC50 = Publication("ESC-50", "CC BY-NC 3.0", "https://github.com/karolpiczak/ESC-50")
ESC10 = replace(ESC50, name="ESC-10", licence="CC BY 3.0")
COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


def build(options: Esc50Options, root: Path | None) -> PairedDataset:
    """Read the table; one pair per clip and template, `positive_key` and column `class` = label.

    Raises:
        ManifestError: If the table is absent or not as published.
    """
    source = PublishedFolder(ESC10 if options.esc10 else ESC50, options, root)
    return source.build(
        (
            PublishedItem(
                key=f"audio/{row['filename']}",
                item_id=row["filename"],
                texts=label_texts(row["category"], options.templates or TEMPLATES),
                group=row["src_file"],
                split=options.split or "",
                fold=row["fold"],
                positive_key=row["category"],
                columns={"class": row["category"]},
            )
            for row in source.read_csv("meta/esc50.csv", COLUMNS)
            if not options.esc10 or row["esc10"] == "True"
        ),
        what="clips",
    )
