"""Zero-shot classification and its prompts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalbind.errors import InputError, NonFiniteError, ShapeError
from modalbind.evaluation import (
    build_prompts,
    compute_class_vectors,
    compute_zero_shot,
    load_templates,
)


def test_agrees_with_argmax():
    generator = torch.Generator().manual_seed(0)
    items, classes = torch.randn(90, 12, generator=generator), torch.randn(7, 12)
    labels = torch.randint(7, (90,), generator=generator)
    found = compute_zero_shot(items, classes, labels, tile=16)
    expected = (F.normalize(items) @ F.normalize(classes).T).argmax(dim=1) == labels
    assert found.per_item.tolist() == expected.double().tolist()
    assert found.top1.value == pytest.approx(expected.double().mean().item())
    assert found.top1.chance == pytest.approx(1 / 7)
    assert (found.n_items, found.n_classes, found.n_groups) == (90, 7, 90)


@pytest.mark.parametrize("collapsed", ["items", "classes"])
def test_a_constant_side_scores_chance_on_balanced_classes(collapsed):
    items, classes = torch.randn(40, 8), torch.randn(4, 8)
    if collapsed == "items":
        items = torch.ones(40, 8)
    else:
        classes = torch.ones(4, 8)
    found = compute_zero_shot(items, classes, torch.arange(40) % 4)
    assert found.top1.value == pytest.approx(0.25)
    assert found.top1.ci95[0] < 0.25 < found.top1.ci95[1]


def test_a_tie_with_the_right_class_counts_as_a_share():
    classes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = compute_zero_shot(torch.tensor([[1.0, 0.0]]), classes, torch.tensor([0]))
    assert found.per_item.tolist() == [0.5]


def test_wrong_labels_and_numbers_are_refused():
    with pytest.raises(ShapeError, match=r"labels in 0\.\.1; found 0\.\.2"):
        compute_zero_shot(torch.eye(3), torch.eye(3)[:2], torch.arange(3))
    with pytest.raises(NonFiniteError):
        compute_zero_shot(torch.full((1, 2), torch.nan), torch.eye(2), torch.tensor([0]))


def test_class_vector_is_the_normalised_mean_of_normalised_prompts():
    prompts = [torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor([[0.0, -2.0]])]
    found = compute_class_vectors(prompts)
    half = 0.5**0.5
    assert found.flatten().tolist() == pytest.approx([half, half, 0.0, -1.0])
    with pytest.raises(ShapeError, match="at least one"):
        compute_class_vectors([torch.zeros(0, 2)])
    with pytest.raises(NonFiniteError, match="class 1"):
        compute_class_vectors([torch.eye(2), torch.full((1, 2), torch.inf)])


def test_prompts_by_language():
    templates = {"en": ("{label}", "the sound of {label}"), "pt": ("som de {label}",)}
    assert build_prompts(["rain"], templates, "en") == [("rain", "the sound of rain")]
    assert build_prompts(["chuva"], templates, "pt-BR") == [("som de chuva",)]
    assert build_prompts(["Regen"], templates, "de") == [("Regen",)]
    assert build_prompts(["Regen", "Hund"], {}, "de") == [("Regen",), ("Hund",)]


def test_braces_in_names_are_plain_text():
    assert build_prompts(["{0} {x}"], {"en": ("a {label} {y}",)}, "en") == [("a {0} {x} {y}",)]


def test_a_template_without_label_is_refused():
    with pytest.raises(InputError, match="a sound"):
        build_prompts(["rain"], {"en": ("a sound",)}, "en")


SPOKEN_OF = set("en ar de es fr hi it ja nl pt ru sv sw zh ko tr".split())


@pytest.mark.parametrize("name", ["generic", "sound", "picture", "depth", "thermal"])
def test_shipped_templates_are_whole(name):
    templates = load_templates(name)
    assert set(templates) >= SPOKEN_OF
    for language, found in templates.items():
        assert found[0] == "{label}"
        assert all(template.count("{label}") == 1 for template in found), language
        assert len(set(found)) == len(found)


def test_templates_of_a_file_are_read_below_the_root(tmp_path):
    (tmp_path / "mine.json").write_text('{"en": ["hear {label}"]}', encoding="utf-8")
    assert load_templates("mine.json", tmp_path) == {"en": ("hear {label}",)}
    (tmp_path / "bad.json").write_text('["no"]', encoding="utf-8")
    with pytest.raises(InputError, match=r"write \{language: "):
        load_templates("bad.json", tmp_path)
    with pytest.raises(InputError, match="depth, generic, picture, sound, thermal; name one"):
        load_templates("soundd", tmp_path)
