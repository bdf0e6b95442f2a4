"""AudioSetCaps: three tables `*AudioSetCaps_caption.csv` in `Dataset/`; the sounds are yours.

Captions that language models wrote for 6 million clips of AudioSet (`YID`), VGGSound (`ID_START`)
and YouTube-8M (`ID_START_LENGTH`); the project publishes ids and no sounds. Source: J. Bai et
al., AudioSetCaps, arXiv 2411.18953; layout of the `baijs/AudioSetCaps` page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_audio.datasets.options import AudioSetCapsOptions
from modalbind_audio.datasets.youtube import split_clip_id

AUDIOSETCAPS = Publication(
    "AudioSetCaps",
    "captions: CC BY 4.0; sounds: YouTube's terms",
    "https://huggingface.co/datasets/baijs/AudioSetCaps",
)
TABLES = {
    "audioset": "AudioSetCaps_caption.csv",
    "vggsound": "VGGSound_AudioSetCaps_caption.csv",
    "youtube8m": "YouTube-8M_AudioSetCaps_caption.csv",
}


def build(options: AudioSetCapsOptions, root: Path | None) -> PairedDataset:
    """Read the tables of the chosen sources.

    Raises:
        ManifestError: If a table is absent or not as published.
    """
    source = PublishedFolder(AUDIOSETCAPS, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: AudioSetCapsOptions) -> Iterator[PublishedItem]:
    for part in options.sources:
        for row in source.read_csv(f"{options.metadata}/{TABLES[part]}", ("id", "caption")):
            video, _ = split_clip_id(row["id"])
            yield PublishedItem(
                key=options.audio.format(source=part, id=row["id"], youtube_id=video),
                item_id=row["id"],
                texts=(row["caption"].strip(),),
                group=video,
                split=options.split,
                columns={"source": part},
            )
