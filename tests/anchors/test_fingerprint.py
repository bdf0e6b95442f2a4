from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from modalbind.anchors.fingerprint import (
    describe_config,
    describe_tokenizer,
    hash_fields,
    hash_weights,
)


def test_weights_hash_is_name_dtype_shape_and_bytes() -> None:
    state = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor(3, dtype=torch.int64)}
    expected = hashlib.sha256()
    expected.update(b"a|torch.int64|()|" + (3).to_bytes(8, "little"))
    expected.update(b"b|torch.float32|(1, 2)|" + bytes.fromhex("0000803f00000040"))
    assert hash_weights(state) == expected.hexdigest()
    assert hash_weights(dict(reversed(state.items()))) == expected.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([1.0, 2.0000002])},
        {"w": torch.tensor([[1.0, 2.0]])},
        {"w": torch.tensor([1.0, 2.0]).to(torch.bfloat16)},
        {"v": torch.tensor([1.0, 2.0])},
        {"w": torch.tensor([1.0, 2.0]), "x": torch.tensor([0.0])},
    ],
)
def test_any_difference_shows(other: dict[str, torch.Tensor]) -> None:
    assert hash_weights(other) != hash_weights({"w": torch.tensor([1.0, 2.0])})


def test_a_view_hashes_like_its_copy() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    assert hash_weights({"w": whole.T}) == hash_weights({"w": whole.T.clone()})


def test_fields_hash_ignores_order_alone() -> None:
    assert hash_fields({"a": 1, "b": [1, 2]}) == hash_fields({"b": [1, 2], "a": 1})
    assert hash_fields({"a": [1, 2]}) != hash_fields({"a": [2, 1]})


def test_tokenizer_calls_leave_no_trace(fakes: Any) -> None:
    tokenizer = fakes.unigram_tokenizer()
    before = describe_tokenizer(tokenizer)
    tokenizer(["a dog"], padding="max_length", truncation=True, max_length=7)
    assert describe_tokenizer(tokenizer) == before
    assert describe_tokenizer(fakes.unigram_tokenizer(("other words here",))) != before
    tokenizer.add_tokens(["<new>"])
    assert describe_tokenizer(tokenizer) != before


def test_a_slow_tokenizer_is_its_class_and_vocabulary() -> None:
    class Slow:
        special_tokens_map = {"pad_token": "<pad>"}  # noqa: RUF012

        def __init__(self, words: list[str]) -> None:
            self.words = words

        def get_vocab(self) -> dict[str, int]:
            return {word: number for number, word in enumerate(self.words)}

    assert describe_tokenizer(Slow(["a", "b"])) == describe_tokenizer(Slow(["a", "b"]))
    assert describe_tokenizer(Slow(["a", "b"])) != describe_tokenizer(Slow(["b", "a"]))


def test_config_keeps_maths_and_drops_the_rest() -> None:
    config = {
        "num_attention_heads": 2,
        "transformers_version": "5.0",
        "_name_or_path": "/somewhere",
        "text_config": {"hidden_act": "gelu", "torch_dtype": "float32"},
        "vision_config": {"dtype": None},
    }
    assert describe_config(config) == {
        "num_attention_heads": 2,
        "text_config": {"hidden_act": "gelu"},
    }
