"""Two small spaces as tables: sentences in three languages, and an English anchor with pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LANGUAGES = ("en", "de", "fr")
CONCEPTS = 60
TRAINED = 40
MEANING, ENCODER, ANCHOR = 8, 16, 12
"""Dimensions of meaning, of the sentence encoder and of the anchor."""


def sentence(concept: int, language: str) -> str:
    return f"{language} word {concept}"


def picture(concept: int) -> str:
    return f"pictures/{concept}.png"


class Tables:
    """Files of the two spaces and of the pairs, made from one draw of meanings."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.folder = folder
        meaning = rng.normal(size=(CONCEPTS, MEANING))
        to_encoder = rng.normal(size=(MEANING, ENCODER))
        to_anchor = rng.normal(size=(MEANING, ANCHOR))

        def embed(matrix: np.ndarray, noise: float) -> np.ndarray:
            raw = meaning @ matrix
            raw += noise * rng.normal(size=raw.shape)
            return raw / np.linalg.norm(raw, axis=1, keepdims=True)

        sides = [embed(to_encoder, 0.05) for _ in LANGUAGES]
        rows = [(sentence(n, name), name) for name in LANGUAGES for n in range(CONCEPTS)]
        self.encoder = self._write("encoder", rows, np.concatenate(sides))
        english = [(sentence(n, "en"), "en") for n in range(CONCEPTS)]
        self.anchor = self._write("anchor", english, embed(to_anchor, 0.05), embed(to_anchor, 0.05))
        self.pairs = self._write_pairs("texts.csv", LANGUAGES)

    def _write(
        self,
        space: str,
        rows: Sequence[tuple[str, str]],
        vectors: np.ndarray,
        pictures: np.ndarray | None = None,
    ) -> str:
        columns: dict[str, Any] = {
            "text": np.array([text for text, _ in rows]),
            "text_language": np.array([language for _, language in rows]),
            "text_vectors": vectors.astype(np.float32),
            "space": np.array(space),
            "normalised": np.array("True"),
        }
        if pictures is not None:
            columns["image"] = np.array([picture(n) for n in range(CONCEPTS)])
            columns["image_vectors"] = pictures.astype(np.float32)
        path = self.folder / f"{space}.npz"
        np.savez(path, **columns)
        return f"precomputed:{path}"

    def _write_pairs(self, name: str, languages: Sequence[str]) -> Path:
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "language", "image", "positive_key", "split"])
            for n in range(CONCEPTS):
                split = "train" if n < TRAINED else "test"
                for language in languages:
                    row = [sentence(n, language), language, picture(n), f"c{n}", split]
                    writer.writerow(row)
        return path

    def recipe(self, **changes: Any) -> dict[str, Any]:
        """Return a recipe in closed form from one table to the other, on these pairs."""
        return {
            "name": "text-test",
            "modality": {"name": "text", "options": {"encoder": self.encoder}},
            "anchor": {"spec": self.anchor},
            "data": {"sources": [{"kind": "manifest", "path": str(self.pairs)}]},
            "encoder": {"kind": "frozen"},
            "train": {"solver": "ridge"},
            "evaluation": {"languages": ["en"], "bootstrap": 100},
            **changes,
        }


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
