"""English captions of COCO as sentences to train on: `annotations/captions_*.json`.

Source: Chen et al. 2015, "Microsoft COCO captions" (arXiv 1504.00325).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from modalbind.api import PairedDataset, Publication, PublishedFolder, text_dataset, text_pair
from modalbind_text.datasets.options import CocoOptions
from modalbind_text.datasets.sentences import draw

COCO = Publication("COCO captions", "CC BY 4.0", "https://cocodataset.org")


def build(options: CocoOptions, root: Path | None) -> PairedDataset:
    """Read the captions; those of one picture are one group.

    Raises:
        ManifestError: If the file is absent or not as published, or has fewer than are asked for.
    """
    source = PublishedFolder(COCO, options, root)
    name = f"annotations/captions_{options.part}.json"
    try:
        found = {
            str(row["caption"]).strip(): str(row["image_id"])
            for row in source.read_json(name)["annotations"]
        }
    except (KeyError, TypeError) as error:
        raise source.error(
            f"captions in {name} asked for",
            f"it is not as published ({type(error).__name__}: {error})",
            f"get it anew from {COCO.homepage}",
        ) from error
    kept = draw([text for text in found if text], options.limit, options.seed, source.folder / name)
    digest = hashlib.sha256(source.open_path(name).read_bytes()).hexdigest()
    pairs = [
        text_pair(text, "en", split=options.split, group=f"coco {found[text]}") for text in kept
    ]
    return text_dataset(COCO.name, COCO.licence, source.folder, pairs, digest)
