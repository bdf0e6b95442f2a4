"""UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`.

All slices of one recording lie in one fold. Source: J. Salamon, C. Jacoby, J. P. Bello, A Dataset
and Taxonomy for Urban Sound Research, ACM Multimedia 2014; layout from the project's page.
"""

from __future__ import annotations

from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem, label_texts
from modalbind_audio.datasets.options import TEMPLATES, UrbanSound8KOptions

URBANSOUND8K = Publication(
    "UrbanSound8K", "CC BY-NC 3.0", "https://urbansounddataset.weebly.com/urbansound8k.html"
)
COLUMNS = ("slice_file_name", "fsID", "fold", "class")


def build(options: UrbanSound8KOptions, root: Path | None) -> PairedDataset:
    """Read the table; one pair per slice and template, `positive_key` and column `class` = label.

    Raises:
        ManifestError: If the table is absent or not as published.
    """
    source = PublishedFolder(URBANSOUND8K, options, root)
    return source.build(
        (
            PublishedItem(
                key=f"audio/fold{row['fold']}/{row['slice_file_name']}",
                item_id=row["slice_file_name"],
                texts=label_texts(row["class"], options.templates or TEMPLATES),
                group=row["fsID"],
                split=options.split or "",
                fold=row["fold"],
                positive_key=row["class"],
                columns={"class": row["class"]},
            )
            for row in source.read_csv("metadata/UrbanSound8K.csv", COLUMNS)
        ),
        what="clips",
    )
