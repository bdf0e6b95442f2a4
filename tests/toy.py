"""A made-up world for tests of the core: labels, sequences that carry them, a table of vectors."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalbind.recipe.schema import Recipe

PLUGIN = Path(__file__).parent / "toy_plugin"
DIM = 8
LABELS = ("circle", "square", "star", "cross", "moon", "arrow")
TRANSLATED = {"en": "a {}", "xx": "zu{}wa"}


def write_world(
    folder: Path, *, samples_per_label: int = 6, seed: int = 0, broken: Sequence[str] = ()
) -> None:
    """Write samples, `pairs.csv`, `links.csv`, `classes.json` and the table `space.npz`.

    A third of each label's samples is for testing. A sample is a sequence around its label's
    four numbers; texts of both languages and the picture of a label lie close in the space.
    """
    rng = np.random.default_rng(seed)
    codes = {label: rng.normal(size=4) for label in LABELS}
    rows = []
    for label in LABELS:
        for number in range(samples_per_label):
            name = f"{label}{number}.json"
            length = int(rng.integers(3, 7))
            sequence = codes[label] + 0.3 * rng.normal(size=(length, 4))
            (folder / name).write_text(json.dumps(sequence.round(5).tolist()))
            split = "test" if number % 3 == 2 else "train"
            rows.append({"toy": name, "text": TRANSLATED["en"].format(label), "split": split})
            rows[-1] |= {"fold": str(number % 3), "kind": label, "group": name}
    for name in broken:
        (folder / name).write_text("[]")
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    _write_links(folder)
    _write_space(folder, rng)


def _write_links(folder: Path) -> None:
    with (folder / "links.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "language", "positive_key"])
        for label in LABELS:
            key = TRANSLATED["en"].format(label)
            writer.writerow([f"{label}.png", TRANSLATED["xx"].format(label), "xx", key])
    names = {lang: {label: t.format(label) for label in LABELS} for lang, t in TRANSLATED.items()}
    (folder / "classes.json").write_text(json.dumps(names))


def _write_space(folder: Path, rng: np.random.Generator) -> None:
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][: len(LABELS)]

    def near(scale: float) -> np.ndarray:
        vectors = centres + scale * rng.normal(size=centres.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    texts = [(t.format(label), lang) for lang, t in TRANSLATED.items() for label in LABELS]
    np.savez(
        folder / "space.npz",
        text=np.array([text for text, _ in texts]),
        text_language=np.array([language for _, language in texts]),
        text_vectors=np.concatenate([near(0.02), near(0.05)]),
        image=np.array([f"{label}.png" for label in LABELS]),
        image_vectors=near(0.08),
        space=np.array("toy space"),
        normalised=np.array(True),
    )


def build_recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe on that world; `changes` are whole sections, merged key by key."""
    raw: dict[str, Any] = {
        "name": "toy",
        "modality": {"name": "toy"},
        "anchor": {"spec": f"precomputed:{folder / 'space.npz'}"},
        "data": {"sources": [{"kind": "manifest", "path": str(folder / "pairs.csv")}]},
        "encoder": {"kind": "toy"},
        "augment": [{"kind": "jitter"}],
        "objective": {"kind": "infonce", "temperature": 0.1},
        "train": {"epochs": 8, "batch_size": 8, "lr": 0.02},
        "evaluation": {
            "links": ["links.csv"],
            "bootstrap": 50,
            "zero_shot": [{"name": "toy", "labels": "classes.json", "label_column": "kind"}],
        },
        "device": "cpu",
    }
    for section, values in changes.items():
        base = raw.get(section)
        raw[section] = {**base, **values} if isinstance(base, dict) else values
    return Recipe.model_validate(raw)
