from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modalbind_audio.beats import (
    Beats,
    BeatsConfig,
    build,
)
from modalbind_audio.beats_checkpoint import from_published, load_beats
from modalbind_audio.features import compute_fbank
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import AudioOptions, BeatsOptions
from modalbind_audio.positions import RelativePositions, relative_buckets
from modalbind_audio.token_masks import drop_tokens, reference_frame_mask, reference_token_mask
from torch import Tensor

from modalbind.api import InputError, ShapeError

AUDIO = build_modality(AudioOptions())
SMALL = {"layers": 2, "width": 32, "heads": 4, "ffn": 48, "embed": 24, "conv_pos": 16}
SMALL |= {"conv_pos_groups": 4, "buckets": 32, "max_distance": 40}


def small(**changes) -> Beats:
    torch.manual_seed(0)
    return build(BeatsOptions(**(SMALL | changes)), AUDIO)


def clips(*lengths: int, mels: int = 128) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(length, mels, generator=draw) for length in lengths]


# --- against the reference -----------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """The oracle's class."""
    reason = "speechbrain, whose copy of BEATs is the oracle, is not installed"
    beats = pytest.importorskip("speechbrain.lobes.models.beats", reason=reason)
    # Its lazy modules warn when looked at, and hypothesis looks at every module there is.
    lazy = {"LazyModule", "DeprecatedModuleRedirect"}
    for name in [name for name, module in sys.modules.items() if type(module).__name__ in lazy]:
        if name.startswith("speechbrain"):
            del sys.modules[name]
    return beats.BEATs


@pytest.mark.filterwarnings("ignore")  # speechbrain's own
@pytest.mark.parametrize(
    ("size", "changes", "seconds"),
    [
        pytest.param("small", {}, 2.5, id="small"),
        pytest.param("small", {"finetuned_model": True}, 2.5, id="small-finetuned"),
        pytest.param("small", {"embed_dim": 64, "conv_pos": 31}, 2.0, id="odd-kernel"),
        pytest.param("base", {}, 1.0, id="base"),
        pytest.param("base", {}, 10.0, id="base-10s", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_agrees_with_the_reference(size, changes, seconds, reference, kit, tmp_path):
    cfg = kit.cfgs[size] | changes
    path = tmp_path / "beats.pt"
    state = kit.published_state(cfg)
    torch.save({"cfg": cfg, "model": state}, path)
    theirs, ours = reference(str(path)), load_beats(path, reference_mask=True)
    count = int(seconds * 16_000)
    waveforms = 0.1 * torch.randn(3, count, generator=torch.Generator().manual_seed(0))
    for lengths in (torch.ones(3), torch.tensor([1.0, 0.73, 0.31])):
        valid = torch.arange(count) < (lengths * count).round().unsqueeze(1)
        sound = waveforms * valid
        features = torch.stack([compute_fbank(clip, AudioOptions()) for clip in sound])
        assert torch.equal(features, theirs.preprocess(sound))
        expected = theirs.extract_features(sound, lengths)
        frames = reference_frame_mask(valid, features.shape[1])
        tokens, _ = ours.tokens(features, frames)
        torch.testing.assert_close(tokens, expected[0], atol=1e-4, rtol=0)
        if cfg["finetuned_model"]:
            probabilities = ours.classify(features, frames)
            torch.testing.assert_close(probabilities, expected[1], atol=1e-5, rtol=0)


def test_released_size(kit):
    with torch.device("meta"):
        config = BeatsConfig.from_published(kit.cfgs["base"])
        sizes = [parameter.numel() for parameter in Beats(config).parameters()]
    assert sum(sizes) == pytest.approx(90.3e6, rel=1e-3)
    # 250 tensors in the file, of which one table stands there twelve times.
    assert len(sizes) == 250 - 11


# --- parts, computed another way -----------------------------------------------------------


def test_buckets_by_hand():
    def bucket(distance: int) -> int:
        size, side = abs(distance), 160 if distance > 0 else 0
        if size < 80:
            return side + size
        return side + min(159, 80 + int(math.log(size / 80) / math.log(10) * 80))

    distances = torch.arange(-900, 901)
    assert relative_buckets(distances, 320, 800).tolist() == [bucket(int(d)) for d in distances]


def test_relative_positions_are_looked_up_pair_by_pair():
    table = RelativePositions(12, 16, 20)
    bias = table(9, None)
    chosen = torch.tensor([[0, 3, 8], [1, 2, 7]])
    some = table(9, chosen)
    for i in range(9):
        for j in range(9):
            row = int(relative_buckets(torch.tensor(j - i), 16, 20))
            assert torch.equal(bias[0, :, i, j], table.weight[row])
    for row in range(2):
        expected = bias[0][:, chosen[row]][:, :, chosen[row]]
        assert torch.equal(some[row], expected)


def test_attention_by_loop():
    model = small().eval()
    attention = model.layers[0].self_attn
    x = torch.randn(1, 5, 32)
    bias = model.relative_positions(5, None)
    found = attention(x, bias, None)[0]
    heads, width = 4, 8
    out = torch.zeros(5, 32)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        q, k, v = (p(x)[0, :, part] for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        for i in range(5):
            eight = attention.grep_linear(q[i])
            a, b = torch.sigmoid(eight[:4].sum()), torch.sigmoid(eight[4:].sum())
            gate = a * (b * attention.grep_a[0, h, 0, 0] - 1) + 2
            scores = torch.stack(
                [q[i] @ k[j] / width**0.5 + gate * bias[0, h, i, j] for j in range(5)]
            )
            out[i, part] = scores.softmax(0) @ v
    torch.testing.assert_close(found, attention.out_proj(out), atol=1e-5, rtol=1e-5)


def test_tokens_run_along_frequency_first():
    model = small().eval()
    features = torch.zeros(1, 64, 128)
    features[0, 32:48, 16:32] = 5.0  # third column, second row
    with torch.no_grad():
        changed = model.patch_embedding(features.unsqueeze(1)).flatten(2).std(1)[0]
    assert changed.argmax() == 2 * 8 + 1


# --- what it promises ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch": (16, 16), "stride": (8, 16)},
        {"patch": (4, 32)},
        {"conv_pos": 15},
        {"pooling": "statistics"},
    ],
    ids=["plain", "overlap", "tall", "odd-kernel", "statistics"],
)
def test_padding_order_and_size_of_the_batch_change_nothing(changes, kit):
    kit.check_encoder(small(**changes), clips(100, 57, 16, 31))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_padding_property(kit, lengths, seed):
    torch.manual_seed(seed)
    kit.check_encoder(build(BeatsOptions(**SMALL), AUDIO), clips(*lengths))


def test_the_reference_mask_does_depend_on_the_batch(kit):
    model = small(reference_mask=True).eval()
    features, valid_mask = kit.pad(clips(100, 57))
    with torch.no_grad():
        alone = model(features[1:, :57], None)
        assert (model(features, valid_mask)[1] - alone[0]).abs().max() > 1e-3


def test_reference_masks_by_hand():
    valid = torch.arange(103).unsqueeze(0) < 41
    # 103 samples, 10 frames: ten samples each; a frame is padding if all of them are.
    assert reference_frame_mask(valid, 10).sum() == 5
    frames = torch.arange(50).unsqueeze(0) < 21
    # 50 frames, 24 tokens of two frames each: cut inside the second column of eight.
    assert reference_token_mask(frames, 24).sum() == 11


def test_gradient_reaches_every_parameter(kit):
    kit.check_gradient(small(dropout=0.1, attention_dropout=0.1, layer_drop=0.1), clips(64, 48))


def test_layer_groups(kit):
    model = small()
    kit.check_groups(model)
    assert len(model.layer_groups()) == 3
    names = {
        name.rpartition(".")[2] for name, part in model.named_modules() if hasattr(part, "bias")
    }
    assert set(model.lora_targets) <= names


def test_checkpointing_changes_no_gradient(kit):
    features, valid_mask = kit.pad(clips(64, 48))
    gradients = []
    for enabled in (False, True):
        model = small().train()
        model.set_checkpointing(enabled)
        model(features, valid_mask).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_training_randomness_is_torchs_and_stops_in_eval(kit):
    model = small(dropout=0.2, layer_drop=0.3, patch_drop=0.5)
    features, valid_mask = kit.pad(clips(64, 48))
    model.train()
    torch.manual_seed(3)
    first = model(features, valid_mask)
    assert not torch.equal(model(features, valid_mask), first)
    torch.manual_seed(3)
    assert torch.equal(model(features, valid_mask), first)
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(model(features, valid_mask), model(features, valid_mask))
    assert torch.equal(torch.get_rng_state(), state)


def test_dropping_tokens_equals_masking_them(kit):
    model = small(patch_drop=0.5).train()
    features, valid_mask = kit.pad(clips(96, 64))
    torch.manual_seed(5)
    dropped, _ = model.tokens(features, valid_mask)
    # The same draw, with the full sequence and the others masked in attention.
    x = torch.zeros(2, 48, 1)
    real = torch.arange(48) < torch.tensor([[48], [32]])
    torch.manual_seed(5)
    _, kept, positions = drop_tokens(x, real, 0.5)
    assert kept.sum(1).tolist() == [24, 16]
    chosen = torch.zeros(2, 48, dtype=torch.bool)
    for row in range(2):
        assert positions[row][kept[row]].tolist() == sorted(set(positions[row][kept[row]].tolist()))
        chosen[row, positions[row][kept[row]]] = True
    assert not (chosen & ~real).any()
    model.eval()
    hidden = []
    handle = model.dropout.register_forward_hook(lambda *call: hidden.append(call[-1]))
    model(features, valid_mask)
    handle.remove()
    x = hidden[0]
    for layer in model.layers:
        x = layer(x, model.relative_positions(48, None), chosen)
    for row in range(2):
        expected = x[row, positions[row][kept[row]]]
        torch.testing.assert_close(dropped[row][kept[row]], expected, atol=1e-5, rtol=1e-5)


def test_refuses_other_features():
    with pytest.raises(ShapeError, match="128"):
        small()(torch.zeros(1, 32, 64), None)
    with pytest.raises(InputError, match="mels"):
        build(BeatsOptions(**SMALL, mels=64), AUDIO)
    with pytest.raises(InputError, match="features=fbank"):
        build(BeatsOptions(**SMALL), build_modality(AudioOptions(features="waveform")))


# --- files ---------------------------------------------------------------------------------


def test_weights_fix_the_architecture(small_checkpoint, kit):
    model = build(BeatsOptions(weights=str(small_checkpoint), dropout=0.2), AUDIO)
    assert (model.width, len(model.layers), model.config.dropout) == (64, 3, 0.2)
    assert model.training
    kit.check_encoder(model, clips(100, 57))
    kit.check_groups(model)


def test_a_finetuned_file_classifies_and_encodes(finetuned_checkpoint, kit):
    model = load_beats(finetuned_checkpoint)
    features, valid_mask = kit.pad(clips(100, 57))
    probabilities = model.classify(features, valid_mask)
    tokens, mask = model.tokens(features, valid_mask)
    for row in range(2):
        logits = model.predictor(tokens[row][mask[row]]).mean(0)
        torch.testing.assert_close(probabilities[row], logits.sigmoid())
    encoder = build(BeatsOptions(weights=str(finetuned_checkpoint)), AUDIO)
    assert encoder.predictor is None
    with pytest.raises(InputError, match="predictor"):
        encoder.classify(features)


def test_state_survives_saving(tmp_path, kit):
    from safetensors.torch import load_model, save_model

    model, other = small(), build(BeatsOptions(**SMALL), AUDIO)
    features, valid_mask = kit.pad(clips(64, 40))
    save_model(model, str(tmp_path / "tower.safetensors"))
    load_model(other, str(tmp_path / "tower.safetensors"))
    model.eval(), other.eval()
    assert torch.equal(other(features, valid_mask), model(features, valid_mask))


def test_portable_options_build_the_same_architecture(small_checkpoint, kit):
    given = {"layer_drop": 0.1, "pooling": "statistics"}
    model = build(BeatsOptions(weights=str(small_checkpoint), **given), AUDIO)
    options = model.portable_options()
    assert options.weights is None
    twin = build(BeatsOptions.model_validate_json(options.model_dump_json()), AUDIO)
    twin.load_state_dict(model.state_dict())
    features, valid_mask = kit.pad(clips(64, 40))
    assert torch.equal(twin.eval()(features, valid_mask), model.eval()(features, valid_mask))
    assert twin.config.encoder_layerdrop == 0.1


def test_refuses_files_that_are_no_checkpoint(tmp_path, kit):
    with pytest.raises(InputError, match="no such file"):
        load_beats(tmp_path / "absent.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.pt"):
        load_beats(tmp_path / "junk.pt")
    torch.save({"model": {}}, tmp_path / "bare.pt")
    with pytest.raises(InputError, match="cfg"):
        load_beats(tmp_path / "bare.pt")
    torch.save({"cfg": kit.cfgs["small"], "model": {}}, tmp_path / "less.pt")
    with pytest.raises(InputError, match="contradicts its cfg"):
        load_beats(tmp_path / "less.pt")


class _Payload:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"cfg": _Payload(), "model": {}}, tmp_path / "evil.pt")
    with pytest.raises(InputError):
        load_beats(tmp_path / "evil.pt")
    assert not Path("owned").exists()


def test_layers_must_share_their_table(kit):
    state = kit.published_state(kit.cfgs["small"])
    state["encoder.layers.2.self_attn.relative_attention_bias.weight"] = torch.zeros(64, 4)
    with pytest.raises(InputError, match="shared"):
        from_published(state)


def test_both_spellings_of_weight_norm(tmp_path, kit):
    state = kit.published_state(kit.cfgs["small"])
    new = "encoder.pos_conv.0.parametrizations.weight.original"
    renamed = {
        key.replace("encoder.pos_conv.0.weight_g", f"{new}0").replace(
            "encoder.pos_conv.0.weight_v", f"{new}1"
        ): value
        for key, value in state.items()
    }
    old, other = from_published(state), from_published(renamed)
    assert old.keys() == other.keys()
    assert all(torch.equal(old[key], other[key]) for key in old)


@pytest.mark.parametrize(
    "cfg", [{"activation_fn": "swish"}, {"deep_norm": True, "layer_norm_first": True}]
)
def test_refuses_architectures_it_has_not(cfg):
    with pytest.raises(InputError):
        BeatsConfig.from_published(cfg)


def test_prenorm_runs(kit):
    config = BeatsConfig.from_published(
        kit.cfgs["small"] | {"layer_norm_first": True, "deep_norm": False}
    )
    kit.check_encoder(Beats(config), clips(64, 40))


def test_numpy_state_is_left_alone():
    state = np.random.get_state()[1].copy()
    small(layer_drop=0.5).train()(torch.randn(2, 32, 128), None)
    assert (np.random.get_state()[1] == state).all()


# --- in two parts --------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("pooling", ["mean", "statistics"])
def test_two_parts_make_the_whole(groups: int, pooling: str, kit) -> None:
    beats = small(pooling=pooling).eval()
    features, mask = kit.pad(clips(64, 40, 33))
    lower, upper = beats.split_at(groups)
    hidden, tokens = lower(features, mask)
    assert torch.allclose(upper(hidden, tokens), beats(features, mask), atol=1e-6)
    assert upper.width == beats.width and upper.layer_groups()[0][0] is beats.patch_embedding


def test_hidden_states_cut_to_their_length_make_the_whole(kit) -> None:
    """As a run keeps them: each clip's own tokens, padded again to those of its batch."""
    beats = small().eval()
    batch = clips(64, 40, 33)
    lower, upper = beats.split_at(2)
    rows = [lower(clip.unsqueeze(0), None)[0][0] for clip in batch]
    hidden, mask = kit.pad(rows)
    whole = beats(*kit.pad(batch))
    assert torch.allclose(upper(hidden, mask), whole, atol=1e-5)


def test_token_dropping_ends_before_the_run_does() -> None:
    beats = small(patch_drop=0.5, patch_drop_until=0.8).train()
    features = torch.stack(clips(64, 64))
    seen: list[int] = []
    beats.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    for progress in (0.0, 0.79, 0.8, 0.99):
        beats.set_progress(progress)
        beats(features)
    assert seen == [16, 16, 32, 32]
    beats.eval()
    beats.set_progress(0.0)
    beats(features)
    assert seen[-1] == 32, "nothing is dropped in eval"
