"""AudioCaps 1 and 2: `dataset/{train,val,test}.csv` (or `dataset2.0/`); the sounds are yours.

One caption per training clip, five per validation and test clip, one row each. The project
publishes ids of YouTube clips of 10 s and no sounds, so the option `audio` says how your files
are named. Source: C. D. Kim et al., AudioCaps, NAACL 2019; columns from `dataset/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_audio.datasets.options import AudioCapsOptions

AUDIOCAPS = Publication(
    "AudioCaps",
    "captions: academic use only (MIT on the repository); sounds: YouTube's terms",
    "https://github.com/cdjkim/audiocaps",
)
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def build(options: AudioCapsOptions, root: Path | None) -> PairedDataset:
    """Read the tables; all captions of a clip are its positives.

    Raises:
        ManifestError: If a table is absent or not as published.
    """
    source = PublishedFolder(AUDIOCAPS, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: AudioCapsOptions) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        for row in source.read_csv(f"{options.metadata}/{part}.csv", COLUMNS):
            names = {
                "id": row["audiocap_id"],
                "youtube_id": row["youtube_id"],
                "start": row["start_time"],
                "start_padded": row["start_time"].zfill(6),
                "split": part,
            }
            yield PublishedItem(
                key=options.audio.format(**names),
                item_id=row["audiocap_id"],
                texts=(row["caption"].strip(),),
                group=row["youtube_id"],
                split=split,
                # By clip, not by file name: five rows are one clip whatever the pattern says.
                positive_key=f"AudioCaps:{row['youtube_id']}:{row['start_time']}",
                columns={"youtube_id": row["youtube_id"], "start_s": row["start_time"]},
            )
