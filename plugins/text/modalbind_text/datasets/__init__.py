"""Corpora to train on and captions in many languages to test on: light specs only.

Each adapter reads the files that its project publishes, in the layout in which it publishes
them. None downloads anything.
"""

from __future__ import annotations

from modalbind.api import DatasetSpec
from modalbind_text.datasets import options

SPECS: list[DatasetSpec] = [
    DatasetSpec(
        name="sentences",
        summary="A plain text file, one sentence a line; what METAL is trained on.",
        api_version=1,
        build="modalbind_text.datasets.sentences:build",
        options=options.SentencesOptions,
        example={"path": "sentences.txt"},
        modality="text",
    ),
    DatasetSpec(
        name="lines",
        summary="Translations line by line, one text file for each language.",
        api_version=1,
        build="modalbind_text.datasets.lines:build",
        options=options.LinesOptions,
        example={"files": {"en": "captions.en"}},
        modality="text",
    ),
    DatasetSpec(
        name="xtd-11",
        summary="XTD-11: captions of 1 000 COCO pictures in eleven languages.",
        api_version=1,
        build="modalbind_text.datasets.xtd:build",
        options=options.XtdOptions,
        modality="text",
    ),
    DatasetSpec(
        name="multi30k",
        summary="Multi30K: a caption of each Flickr30K picture in four languages.",
        api_version=1,
        build="modalbind_text.datasets.multi30k:build",
        options=options.Multi30kOptions,
        modality="text",
    ),
    DatasetSpec(
        name="crossmodal-3600",
        summary="Crossmodal-3600: captions of 3 600 pictures in 36 languages.",
        api_version=1,
        build="modalbind_text.datasets.crossmodal3600:build",
        options=options.Crossmodal3600Options,
        modality="text",
    ),
    DatasetSpec(
        name="coco-captions",
        summary="English captions of COCO, as sentences to train on.",
        api_version=1,
        build="modalbind_text.datasets.coco:build",
        options=options.CocoOptions,
        modality="text",
    ),
]
