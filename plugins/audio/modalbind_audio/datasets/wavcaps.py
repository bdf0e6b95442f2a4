"""WavCaps: `json_files/<source>/*_final.json`, `json_files/blacklist/*.json`; FLAC by source.

The published archives unpack to a deep folder; the option `audio` says where your files lie.
Blacklists name clips that AudioCaps, Clotho, UrbanSound8K, ESC-50 and VGGSound hold: they are
left out unless `blacklists` is emptied. Source: X. Mei et al., WavCaps, arXiv 2303.17395; layout
of the `cvssp/WavCaps` page. Entries lie under `data`, or form the file itself in older copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modalbind.api import PairedDataset, Publication, PublishedFolder, PublishedItem
from modalbind_audio.datasets.options import WavCapsOptions
from modalbind_audio.datasets.youtube import split_clip_id

WAVCAPS = Publication(
    "WavCaps",
    "captions: CC BY 4.0, academic use only; sounds: by source",
    "https://huggingface.co/datasets/cvssp/WavCaps",
)
TABLES = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
BLACKLIST_NAMES = {"AudioSet_SL": "AudioSet", "FreeSound": "FreeSound"}


def build(options: WavCapsOptions, root: Path | None) -> PairedDataset:
    """Read the tables of the chosen sources, without what the blacklists name.

    Raises:
        ManifestError: If a file is absent or not as published.
    """
    source = PublishedFolder(WAVCAPS, options, root)
    return source.build(_clips(source, options), what="clips")


def _clips(source: PublishedFolder, options: WavCapsOptions) -> Iterator[PublishedItem]:
    blacklists = [_read_blacklist(source, name) for name in options.blacklists]
    for part in options.sources:
        banned: set[str] = set()
        for blacklist in blacklists:
            banned |= blacklist.get(BLACKLIST_NAMES.get(part, ""), set())
        for entry in _read_entries(source, part):
            clip_id = _stem(str(entry["id"]))
            if clip_id in banned or _is_longer(entry, options.max_duration_s):
                continue
            yield PublishedItem(
                key=options.audio.format(source=part, id=clip_id),
                item_id=clip_id,
                texts=(str(entry["caption"] or "").strip(),),
                group=_group(part, clip_id),
                split=options.split,
                columns={"source": part},
            )


def _read_entries(source: PublishedFolder, part: str) -> list[dict[str, Any]]:
    name = f"json_files/{part}/{TABLES[part]}"
    content = source.read_json(name)
    entries = content.get("data") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise source.error(f"list `data` asked of {name}", "it has none", "get the file anew")
    for number, entry in enumerate(entries, start=1):
        for key in ("id", "caption"):
            if not isinstance(entry, dict) or key not in entry:
                raise source.error(
                    f"key '{key}' asked of {name}, entry {number}",
                    "it has none",
                    f"use the file as {WAVCAPS.homepage} publishes it",
                )
    return entries


def _read_blacklist(source: PublishedFolder, name: str) -> dict[str, set[str]]:
    path = f"json_files/blacklist/{name}"
    content = source.read_json(path)
    if not isinstance(content, dict) or not set(content) & set(BLACKLIST_NAMES.values()):
        raise source.error(
            f"lists {' and '.join(BLACKLIST_NAMES.values())} asked of {path}",
            "it has neither",
            f"use the file as {WAVCAPS.homepage} publishes it",
        )
    return {key: {_stem(str(clip)) for clip in clips} for key, clips in content.items()}


def _is_longer(entry: dict[str, Any], limit_s: float | None) -> bool:
    return limit_s is not None and float(entry.get("duration") or 0.0) > limit_s


def _stem(clip_id: str) -> str:
    return clip_id.removesuffix(".wav").removesuffix(".flac")


def _group(part: str, clip_id: str) -> str:
    if part == "AudioSet_SL":
        return split_clip_id(clip_id)[0]
    # Bare numbers are Freesound's everywhere in this plugin; other archives count from 1 too.
    return clip_id if part == "FreeSound" else f"{part}:{clip_id}"
