"""VGGSound: `vggsound.csv` without a header; the sounds are yours.

Columns in order: YouTube id, start in seconds, label, split (`train` or `test`). The project
publishes ids and no sounds. Source: H. Chen et al., VGGSound, ICASSP 2020; columns from the
project's README.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem, label_texts
from modalbind_audio.datasets.options import TEMPLATES, VggSoundOptions

VGGSOUND = Publication(
    "VGGSound",
    "table: CC BY 4.0; sounds: their owners'",
    "https://github.com/hche11/VGGSound",
)
COLUMNS = ("youtube_id", "start_s", "label", "split")


def build(options: VggSoundOptions, root: Path | None) -> PairedDataset:
    """Read the table; one pair per clip and template, `positive_key` and column `class` = label.

    Raises:
        ManifestError: If the table is absent or not as published.
    """
    source = PublishedFolder(VGGSOUND, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: VggSoundOptions) -> Iterator[PublishedItem]:
    splits: dict[str, str] = {str(part): split for part, split in options.splits.items()}
    for row in source.read_csv(options.metadata, COLUMNS, header=False):
        part, start = row["split"].strip(), row["start_s"].strip()
        if part not in ("train", "test") or not start.isdigit():
            raise source.error(
                f"id, start, label, split asked of {options.metadata}",
                f"a line has {', '.join(row.values())}",
                f"use the file as {VGGSOUND.homepage} publishes it",
            )
        if part not in splits:
            continue
        names = {
            "youtube_id": row["youtube_id"],
            "start": start,
            "start_padded": start.zfill(6),
            "split": part,
        }
        yield PublishedItem(
            key=options.audio.format(**names),
            item_id=f"{row['youtube_id']}_{start.zfill(6)}",
            texts=label_texts(row["label"], options.templates or TEMPLATES),
            group=row["youtube_id"],
            split=splits[part],
            positive_key=row["label"],
            columns={"class": row["label"], "start_s": start},
        )
