"""Auto-ACD: `train.csv` and `test.csv`; the sounds are yours.

Captions that a language model wrote from sound and picture of AudioSet and VGGSound clips; the
project publishes ids and no sounds. Source: L. Sun et al., Auto-ACD, ACM Multimedia 2024; columns
of the tables on the `Loie/Auto-ACD` page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_audio.datasets.options import AutoAcdOptions
from modalbind_audio.datasets.youtube import split_clip_id

AUTO_ACD = Publication(
    "Auto-ACD",
    "captions: none stated on the page; sounds: YouTube's terms",
    "https://huggingface.co/datasets/Loie/Auto-ACD",
)
COLUMNS = ("youtube_id", "caption")


def build(options: AutoAcdOptions, root: Path | None) -> PairedDataset:
    """Read the tables.

    Raises:
        ManifestError: If a table is absent or not as published.
    """
    source = PublishedFolder(AUTO_ACD, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: AutoAcdOptions) -> Iterator[PublishedItem]:
    for part, split in options.splits.items():
        for row in source.read_csv(f"{part}.csv", COLUMNS):
            clip_id = row["youtube_id"]
            video, _ = split_clip_id(clip_id)
            yield PublishedItem(
                key=options.audio.format(id=clip_id, youtube_id=video, split=part),
                item_id=clip_id,
                texts=(row["caption"].strip(),),
                group=video,
                split=split,
            )
