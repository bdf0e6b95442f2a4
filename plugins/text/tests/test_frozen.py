"""The sentence encoder behind the features, the identity that hands them on, and noise."""

from __future__ import annotations

import pickle

import pytest
import torch
from modalbind_text.augment import build_noise
from modalbind_text.frozen import build
from modalbind_text.modality import build as build_modality
from modalbind_text.options import FrozenOptions, NoiseOptions, TextOptions

from modalbind.api import AnchorError, BrokenSampleError, InputError, TextSample


def make(tables):
    return build_modality(TextOptions(encoder=tables.encoder))


def test_sentences_are_encoded_together_and_once(tables):
    modality = make(tables)
    samples = [TextSample(f"de word {n}", "de") for n in range(5)] * 2
    modality.prepare(samples)
    assert modality.space.reused == 5, "one request, each sentence once"
    rows = torch.stack([modality.features(sample) for sample in samples])
    modality.prepare(samples)
    assert modality.space.reused == 5, "what is known is not asked for again"
    assert torch.equal(rows[:5], rows[5:]) and rows.shape == (10, 16)
    copied = pickle.loads(pickle.dumps(modality))
    assert torch.equal(copied.features(samples[0]), rows[0])


def test_it_hands_on_the_features_of_one_space_alone(tables):
    modality = make(tables)
    encoder = build(FrozenOptions(), modality)
    rows = torch.randn(3, 16)
    assert torch.equal(encoder(rows, None), rows) and encoder.width == 16
    bound = encoder.portable_options()
    assert bound.space == modality.space.fingerprint
    assert build(bound, modality).width == 16
    with pytest.raises(AnchorError, match="restore the encoder that it was trained on"):
        build(FrozenOptions(space="f" * 64), modality)
    with pytest.raises(InputError, match=r"set modality\.name to text"):
        build(FrozenOptions(), object())


def test_noise_has_its_variance_and_leaves_unit_norm():
    feature = torch.nn.functional.normalize(torch.randn(4096), dim=0)
    noisy = build_noise(NoiseOptions(variance=1e-4), None)
    found = torch.stack([noisy(feature, torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert torch.allclose(found.norm(dim=1), torch.ones(50), atol=1e-5)
    # |x + e|^2 is 1 + dim * variance on average; the cosine is one over its root
    expected = (1 + 4096 * 1e-4) ** -0.5
    assert float((found @ feature).mean()) == pytest.approx(expected, abs=0.01)
    again = noisy(feature, torch.Generator().manual_seed(0))
    assert torch.equal(again, found[0])


def test_what_is_no_text_is_refused(tables):
    modality = make(tables)
    with pytest.raises(InputError, match="texts asked for; found int"):
        modality.prepare([3])
    with pytest.raises(BrokenSampleError, match="no letters"):
        modality.load(None, "  ")
    assert modality.describe(TextSample("two words")) == {"characters": 9.0, "words": 2.0}
