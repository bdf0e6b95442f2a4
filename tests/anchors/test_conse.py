"""A classifier in the words of a text space, held against the formula written out in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import normalize, to_tensor

from modalbind.anchors.parts import open_space
from modalbind.errors import AnchorError
from modalbind.types import AnchorItem
from tests.anchors.conftest import image_item, text_item

CLASSES = ("frog", "dog", "drum", "big bell", "cat")
WIDTH = 6
SIZE_PX = 32
ARCHITECTURE = "test_efficientnet"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small classifier with random weights as timm saves one, class names, and words."""
    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE, num_classes=len(CLASSES))
    settings = {
        "input_size": [3, SIZE_PX, SIZE_PX], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4],
        "crop_pct": 1.0, "interpolation": "bilinear", "num_classes": len(CLASSES),
        "first_conv": "conv_stem", "classifier": "classifier",
    }  # fmt: skip
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": len(CLASSES),
        "pretrained_cfg": settings,
    }
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    write_words(tmp_path, [*CLASSES, *(f"a {name}" for name in CLASSES), "a green frog"])
    return tmp_path


def write_words(folder: Path, words: list[str]) -> None:
    vectors = np.random.default_rng(3).normal(size=(len(words), WIDTH))
    np.savez(
        folder / "words.npz",
        text=np.array(words),
        text_language=np.array(["en"] * len(words)),
        text_vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        space=np.array("words"),
        normalised=np.array("True"),
    )


def open_conse(folder: Path, **options: object):
    given = {
        "text": f"precomputed:{folder / 'words.npz'}",
        "class_names": str(folder / "classes.json"),
        **options,
    }
    return open_space(f"conse:local-dir:{folder}", given)


def pictures(n: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    shape = (SIZE_PX, SIZE_PX, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(n)]


def items_of(found: list[Image.Image]) -> list[AnchorItem]:
    return [image_item(f"picture {n}", lambda p=picture: p) for n, picture in enumerate(found)]


def word_vectors(folder: Path) -> dict[str, np.ndarray]:
    table = np.load(folder / "words.npz")
    rows = table["text_vectors"].astype(np.float64)
    return dict(zip(table["text"].tolist(), rows, strict=True))


@pytest.mark.parametrize(
    ("k", "temperature", "templates", "centre"),
    [(2, 1.0, ("{label}",), False), (5, 0.05, ("{label}", "a {label}"), True)],
)
def test_a_picture_is_the_weighted_mean_of_its_likeliest_classes(
    folder: Path, k: int, temperature: float, templates: tuple[str, ...], centre: bool
) -> None:
    space = open_conse(folder, k=k, temperature=temperature, templates=templates, centre=centre)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    words = word_vectors(folder)
    classes = []
    for name in CLASSES:
        mean = np.mean([words[t.replace("{label}", name)] for t in templates], axis=0)
        classes.append(mean / np.linalg.norm(mean))
    mean = np.mean(classes, axis=0) if centre else np.zeros(WIDTH)
    found = space.embed("image", items_of(pictures()))
    for row, picture in zip(found.numpy(), pictures(), strict=True):
        pixels = normalize(to_tensor(picture), [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
        with torch.no_grad():
            logits = model(pixels[None])[0].double().numpy() / temperature
        believed = np.exp(logits - logits.max())
        believed /= believed.sum()
        kept = np.argsort(believed)[::-1][:k]
        expected = sum(believed[c] * classes[c] for c in kept) / believed[kept].sum() - mean
        assert np.allclose(row, expected / np.linalg.norm(expected), atol=1e-4)


def test_texts_are_the_text_spaces_own(folder: Path) -> None:
    space = open_conse(folder)
    (found,) = space.embed("text", [text_item("a green frog")])
    assert np.allclose(found, word_vectors(folder)["a green frog"], atol=1e-6)
    assert space.modalities == ("text", "image") and space.dim == WIDTH
    centred = open_conse(folder, centre=True)
    (moved,) = centred.embed("text", [text_item("a green frog")])
    assert not np.allclose(found, moved, atol=1e-3)


def test_its_identity_is_classifier_words_and_options(folder: Path) -> None:
    first = open_conse(folder).fingerprint
    assert open_conse(folder).fingerprint == first
    assert open_conse(folder, k=3).fingerprint != first
    assert open_conse(folder, temperature=2.0).fingerprint != first
    (folder / "classes.json").write_text(json.dumps(CLASSES[::-1]))
    assert open_conse(folder).fingerprint != first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class_names": None}, "classes are not ImageNet's; name a file of class names"),
        ({"text": "conse:resnet18"}, "another classifier's space"),
        ({"k": 0}, r"options of conse:.*k:"),
        ({"templates": ["a frog"]}, r"lacks {label}"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(AnchorError, match=says):
        open_conse(folder, **change)


def test_names_must_fit_the_classifier(folder: Path) -> None:
    (folder / "short.txt").write_text("frog\ndog\n")
    with pytest.raises(AnchorError, match="5 classes; 2 names are given"):
        open_conse(folder, class_names=str(folder / "short.txt"))
    (folder / "broken.json").write_text('{"frog": 1}')
    with pytest.raises(AnchorError, match="no list of texts"):
        open_conse(folder, class_names=str(folder / "broken.json"))
    write_words(folder, ["frog"])
    with pytest.raises(AnchorError, match=r"'big bell'|'dog'"):
        open_conse(folder)


def test_a_classifier_that_is_not_there_is_one_line(folder: Path) -> None:
    with pytest.raises(AnchorError, match="asked to open anchor conse:local-dir:"):
        open_space(f"conse:local-dir:{folder}/nowhere", {"text": f"precomputed:{folder}/words.npz"})


def test_imagenets_names_are_timms_first_synonyms() -> None:
    from modalbind.anchors.conse import _read_class_names
    from modalbind.anchors.options import ConseOptions

    model = timm.create_model(ARCHITECTURE, num_classes=1000)
    options = ConseOptions(text="transformers:world")
    assert _read_class_names("x", model, options)[:2] == ["tench", "goldfish"]
    whole = options.model_copy(update={"first_name": False})
    assert _read_class_names("x", model, whole)[0] == "tench, Tinca tinca"
