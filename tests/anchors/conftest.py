"""Tiny random models, saved as their authors publish theirs, and a way to open any anchor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.opened import OpenAnchor
from modalbind.anchors.options import OpenClipOptions, PrecomputedOptions, TransformersOptions
from modalbind.interfaces import API_VERSION, AnchorSpec, Options
from modalbind.recipe.schema import AnchorSection
from modalbind.types import AnchorItem

SENTENCES = (
    "a dog barks twice in the yard",
    "ein hund bellt über den zaun",
    "собака лает громко",
    "a red square on the left",
    "two small circles, far away",
)
OPTIONS: dict[str, type[Options]] = {
    "openclip": OpenClipOptions,
    "transformers": TransformersOptions,
    "precomputed": PrecomputedOptions,
}


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_of(kind: str) -> AnchorSpec:
    return AnchorSpec(
        name=kind,
        summary="Under test.",
        api_version=API_VERSION,
        build=f"modalbind.anchors.{kind}:build",
        options=OPTIONS[kind],
    )


def open_here(spec: str, root: Path, **section: Any) -> OpenAnchor:
    kind = spec.partition(":")[0]
    return open_anchor(AnchorSection(spec=spec, **section), spec_of(kind), AnchorCache(root))


def text_item(text: str, language: str | None = "en") -> AnchorItem:
    return AnchorItem(text, hashlib.sha256(text.encode()).digest(), lambda: text, language)


def image_item(key: str, load: Callable[[], Any]) -> AnchorItem:
    return AnchorItem(key, hashlib.sha256(key.encode()).digest(), load)


def unigram_tokenizer(sentences: tuple[str, ...] = SENTENCES) -> Any:
    """An XLM-R style tokenizer: <s> 0, <pad> 1, </s> 2, <unk> 3."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(list(sentences) * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )


def save_openclip(folder: Path, seed: int = 0, sentences: tuple[str, ...] = SENTENCES) -> Path:
    """A custom-text OpenCLIP model with a tiny XLM-R text tower, as a local folder."""
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import save_file
    from transformers import XLMRobertaConfig

    folder.mkdir(parents=True)
    tokenizer = unigram_tokenizer(sentences)
    tokenizer.save_pretrained(folder)
    XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=1,
    ).save_pretrained(folder)
    model_cfg: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 16,
            "head_width": 8,
            "patch_size": 8,
        },
        "text_cfg": {
            "hf_model_name": ".",
            "hf_tokenizer_name": ".",
            "hf_model_pretrained": False,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
            "context_length": 24,
        },
    }
    preprocess_cfg = {"size": 32, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    text_cfg = {**model_cfg["text_cfg"], "hf_model_name": str(folder)}
    model = CustomTextCLIP(**{**model_cfg, "text_cfg": text_cfg})
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    """The helpers above: test modules cannot import this one."""
    return SimpleNamespace(
        sentences=SENTENCES,
        spec_of=spec_of,
        open_here=open_here,
        text_item=text_item,
        image_item=image_item,
        unigram_tokenizer=unigram_tokenizer,
        save_openclip=save_openclip,
    )


@pytest.fixture(scope="session")
def openclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_openclip(tmp_path_factory.mktemp("openclip") / "tiny@v1:0")
