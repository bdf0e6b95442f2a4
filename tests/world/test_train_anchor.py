from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modalbind.world import (
    LANGUAGES,
    anchor_folder,
    build_scenes,
    caption,
    render_picture,
)
from modalbind.world import train_anchor as script

AUDIBLE = ("kind", "count", "size", "distance")
FLOOR = 0.85  # measured 0.95 at release
TINY = script.Settings(steps=3, n_scenes=40, batch_size=16, n_sentence_pairs=8, threads=1)
FILES = {"config.json", "open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"}


@pytest.fixture(autouse=True)
def _torch_as_before() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any, Any]:
    """The shipped anchor, opened from another folder than its own."""
    import open_clip

    folder = anchor_folder()
    text_cfg = script.read_model_cfg(folder)["text_cfg"]
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(
        name, require_pretrained=True, text_cfg=text_cfg
    )
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


@torch.no_grad()
def recall_at_10(shipped: tuple[Any, Any, Any], languages: list[str], n: int) -> dict[str, float]:
    model, preprocess, tokenizer = shipped
    scenes = build_scenes("test", n, 0, AUDIBLE)
    pictures = torch.stack([preprocess(render_picture(scene, 1)) for scene in scenes])
    targets = model.encode_image(pictures, normalize=True)

    def recall(language: str) -> float:
        texts = [caption(scene, language, AUDIBLE, seed=7) for scene in scenes]
        similarity = model.encode_text(tokenizer(texts), normalize=True) @ targets.T
        hits = [i in row.argsort(descending=True)[:10] for i, row in enumerate(similarity)]
        return sum(hits) / n

    return {language: recall(language) for language in languages}


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        script.train_anchor(tmp_path / name, dataclasses.replace(TINY, seed=seed))
    assert {file.name for file in (tmp_path / "one").iterdir()} >= FILES
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    weights = [
        (tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in ("one", "three")
    ]
    assert weights[0] != weights[1]


def test_the_shipped_configuration_is_the_script_s(tmp_path: Path) -> None:
    script.write_configuration(tmp_path, script.build_tokenizer())
    for name in sorted(FILES - {"open_clip_model.safetensors"}):
        made, kept = (
            json.loads((at / name).read_text("utf-8")) for at in (tmp_path, anchor_folder())
        )
        for library in ("transformers_version", "version"):  # what wrote it, not what it says
            made.pop(library, None)
            kept.pop(library, None)
        assert made == kept, name


def test_the_anchor_is_small_and_opens_from_anywhere(
    shipped: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, _, tokenizer = shipped
    assert sum(file.stat().st_size for file in anchor_folder().iterdir()) < 4 * 2**20
    with torch.no_grad():
        alone = model.encode_text(tokenizer(["two big frogs"]), normalize=True)
        longer = tokenizer(["two big frogs", "one small bell and two big frogs far away"])
        padded = model.encode_text(longer, normalize=True)[:1]
    assert alone.shape == (1, script.DIM)
    torch.testing.assert_close(alone, padded, atol=1e-6, rtol=0)


def test_the_tokenizer_knows_every_word_and_spells_the_rest() -> None:
    tokenizer = script.build_tokenizer()
    unknown = tokenizer.token_to_id("<unk>")
    for scene in build_scenes("test", 40):
        for language in LANGUAGES:
            text = caption(scene, language, seed=1)
            # One token a word, and the two that frame the sentence.
            ids = tokenizer.encode(text).ids
            assert len(ids) == len(text.split()) + 2
            assert unknown not in ids
            assert len(ids) <= script.CONTEXT_LENGTH
    assert tokenizer.encode("Two BIG frogs").ids == tokenizer.encode("two big frogs").ids
    assert len(tokenizer.encode("frogged").ids) > 3


def test_batches_hold_what_they_say() -> None:
    scenes = build_scenes("train", 64)
    batch = next(script._batches(scenes, script.build_tokenizer(), TINY))
    assert batch.pictures.shape == (16, 3, 64, 64)
    assert batch.captions.shape[0] == 16
    assert batch.english.shape[0] == batch.translations.shape[0] == 8
    assert batch.attributes.shape == (16, len(script._ANSWERS))
    again = next(script._batches(scenes, script.build_tokenizer(), TINY))
    assert torch.equal(batch.captions, again.captions)


def test_blocks_show_the_same_kinds_and_no_scene_twice() -> None:
    kinds = np.repeat(np.array(["bell", "drum", "bell+drum"]), 32)
    rows = list(script.alike(kinds, 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(rows)) == list(range(96))
    for batch in rows:
        for block in batch.reshape(-1, script.BLOCK):
            assert len(set(kinds[block])) == 1


def test_unpictured_languages_are_never_paired_with_a_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = set()

    def listen(scene: object, language: str, *rest: object, **named: object) -> str:
        said.add(language)
        return "x"

    monkeypatch.setattr(script, "caption", listen)
    rng = np.random.default_rng(0)
    scene = build_scenes("train", 1)[0]
    for _ in range(400):
        script._picture_caption(scene, rng)
    assert said == set(script.PICTURED_LANGUAGES)


def test_the_loss_is_clip_s() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (unit(torch.randn(6, 8, generator=generator)) for _ in range(2))
    total = 0.0
    for left, right in ((a, b), (b, a)):  # the definition, in a loop
        for i in range(6):
            scores = [float(5.0 * left[i] @ right[j]) for j in range(6)]
            total += float(np.log(np.sum(np.exp(scores)))) - scores[i]
    assert script.contrast(a, b, torch.tensor(5.0)).item() == pytest.approx(total / 12, abs=1e-5)


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def test_the_anchor_finds_held_out_pictures_by_what_can_be_heard(
    shipped: tuple[Any, Any, Any],
) -> None:
    assert recall_at_10(shipped, ["en"], 256)["en"] >= FLOOR  # chance: 0.04


@pytest.mark.slow
def test_every_language_finds_them_unpictured_ones_too(shipped: tuple[Any, Any, Any]) -> None:
    recalls = recall_at_10(shipped, list(LANGUAGES), 320)
    assert recalls["en"] >= FLOOR
    assert {name: value for name, value in recalls.items() if value < 0.85 * recalls["en"]} == {}
