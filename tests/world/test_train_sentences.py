"""The sentence encoder of the world: what ships, and the script that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from modalbind.anchors.parts import open_space
from modalbind.types import text_item
from modalbind.world import LANGUAGES, build_scenes, caption, sentence_folder
from modalbind.world import train_sentences as script

PERCEIVES = ("kind", "count", "size", "distance", "position")
LARGEST_BYTES = 1_000_000
FLOOR = 0.9  # measured 0.98 at release


@pytest.fixture(autouse=True)
def _torch_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_a_sentence_finds_its_translation_in_every_language() -> None:
    scenes = build_scenes("test", 64, 5, PERCEIVES)
    space = open_space("transformers:world")

    def embed(language: str) -> torch.Tensor:
        texts = [caption(scene, language, PERCEIVES, seed=9) for scene in scenes]
        return space.embed("text", [text_item(text) for text in texts])

    english = embed("en")
    for language in LANGUAGES[1:]:
        nearest = (embed(language) @ english.T).argmax(dim=1)
        assert float((nearest == torch.arange(64)).float().mean()) >= FLOOR, language


def test_every_word_of_every_language_is_known() -> None:
    tokenizer = script.build_tokenizer()
    unknown = tokenizer.token_to_id("<unk>")
    for scene in build_scenes("test", 20, 3):
        for language in LANGUAGES:
            assert unknown not in tokenizer.encode(caption(scene, language)).ids


def test_it_is_small() -> None:
    files = [path for path in sentence_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES


def test_the_script_writes_a_folder_that_opens_and_embeds_as_trained(tmp_path: Path) -> None:
    settings = script.Settings(steps=3, n_scenes=40, batch_size=16)
    for name in ("one", "two"):
        script.train_sentences(tmp_path / name, settings)
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")
    )
    assert first == second, "the same seed gives the same bytes"
    space = open_space(f"transformers:{tmp_path / 'one'}")
    assert space.dim == script.WIDTH and space.modalities == ("text",)
    assert space.embed("text", [text_item("two small bells")]).shape == (1, script.WIDTH)


def test_sentences_are_translations_of_one_another() -> None:
    """No batch says one thing in one language twice, and no picture is ever drawn."""
    ones, others = next(script._pairs(script.Settings(n_scenes=64, batch_size=32)))
    assert len(ones) == len(others) == 32
    assert all(not set(a.split()) & set(b.split()) for a, b in zip(ones, others, strict=True))
    assert "render_picture" not in vars(script)
