"""What a run wrote down of its pairs decides which directions count as trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import toy

from modalbind.measure import build_protocol


def paired_of(tmp_path: Any, paired: list[list[str]]) -> Any:
    directory: Any = SimpleNamespace(read_identity=lambda: {"paired": paired})
    return build_protocol(directory, toy.build_recipe(tmp_path)).paired


def test_runs_from_before_samples_had_languages_are_read(tmp_path) -> None:
    before = paired_of(tmp_path, [["text", "en"], ["image", ""]])
    now = paired_of(tmp_path, [["text", "en", ""], ["image", "", ""]])
    assert before == now == {("text", "en", ""), ("image", "", "")}


def test_trained_languages_are_those_of_either_side(tmp_path) -> None:
    directory: Any = SimpleNamespace(
        read_identity=lambda: {"paired": [["text", "en", "en"], ["text", "de", ""]]}
    )
    rules = build_protocol(directory, toy.build_recipe(tmp_path))
    assert rules.trained_languages == {"en", "de"}
    directory = SimpleNamespace(read_identity=lambda: {"paired": [["image", "", ""]]})
    assert build_protocol(directory, toy.build_recipe(tmp_path)).trained_languages == {"en"}
