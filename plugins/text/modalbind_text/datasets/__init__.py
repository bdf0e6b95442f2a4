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
        modality="text",
    ),
]
