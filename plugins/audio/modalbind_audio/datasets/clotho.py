"""Clotho v2: `clotho_captions_*.csv` and the folders of its three parts.

Five captions per clip of 15 to 30 s. `clotho_metadata_*.csv`, if it is there, gives the Freesound
recording as group; else the file is its own group. Source: K. Drossos, S. Lipping, T. Virtanen,
Clotho, ICASSP 2020; layout of version 2.1 on Zenodo.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_audio.datasets.options import ClothoOptions

CLOTHO = Publication(
    "Clotho",
    "captions: Tampere University licence (non-commercial, attribution); "
    "sounds: Creative Commons, by file",
    "https://zenodo.org/records/4783391",
)
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def build(options: ClothoOptions, root: Path | None) -> PairedDataset:
    """Read the tables; all five captions of a clip are its positives.

    Raises:
        ManifestError: If a table is absent or not as published.
    """
    source = PublishedFolder(CLOTHO, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: ClothoOptions) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        recordings = _read_recordings(source, part)
        for row in source.read_csv(f"clotho_captions_{part}.csv", ("file_name", *CAPTIONS)):
            yield PublishedItem(
                key=f"{part}/{row['file_name']}",
                item_id=row["file_name"],
                texts=tuple(row[column].strip() for column in CAPTIONS),
                group=recordings.get(row["file_name"], row["file_name"]),
                split=split,
            )


def _read_recordings(source: PublishedFolder, part: str) -> dict[str, str]:
    """Return the Freesound id by file name, where it is known."""
    name = f"clotho_metadata_{part}.csv"
    if not source.has(name):
        return {}
    # Names of uploaders are not all UTF-8; ids are digits in any encoding.
    rows = source.read_csv(name, ("file_name", "sound_id"), encoding="latin-1")
    return {row["file_name"]: row["sound_id"] for row in rows if row["sound_id"].isdigit()}
