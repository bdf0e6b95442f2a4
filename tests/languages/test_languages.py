"""What is known of languages: tables by name, by encoder or from a file; levels by share."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalbind.errors import RecipeError
from modalbind.languages import (
    HIGH_SHARE,
    MID_SHARE,
    NO_TABLE,
    base_language,
    find_table,
    order_levels,
)
from modalbind.world import LANGUAGES, PICTURED_LANGUAGES, UNPICTURED_LANGUAGES


def test_shares_are_of_the_sum_and_levels_follow_them() -> None:
    table = find_table("cc100", [])
    shares = {language: table.share(language) or 0.0 for language in table.mib}
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda name: shares[name]) == "en"
    assert table.share("zh_CN") == table.share("zh") > table.share("sw") > 0
    for language, share in shares.items():
        wanted = "high" if share >= HIGH_SHARE else "mid" if share >= MID_SHARE else "low"
        assert table.level(language) == wanted
    assert table.level("en") == "high" and table.level("sw") == "low"
    assert table.level("tlh") == "not covered" and table.share("tlh") == 0


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("openclip:xlm-roberta-base-ViT-B-32@laion5b_s13b_b90k", "CC-100"),
        ("transformers:intfloat/multilingual-e5-small", "CC-100"),
        ("universal-sentence-encoder-multilingual-3", "sixteen"),
        ("anchor + universal-sentence-encoder-multilingual-3", "sixteen"),
        ("openclip:world", "paired with pictures"),
        ("transformers:world", "translations"),
        ("openclip:ViT-B-32@openai", "not known"),
    ],
)
def test_the_table_is_found_by_the_encoder(encoder: str, says: str) -> None:
    assert says in find_table("auto", ["what nobody knows", encoder]).source


def test_the_worlds_languages_are_those_of_the_world() -> None:
    table = find_table("world", [])
    assert table.groups["pictured"] == PICTURED_LANGUAGES
    assert table.groups["not pictured"] == UNPICTURED_LANGUAGES
    assert table.level("sw") == "not pictured" and table.share("sw") is None
    assert set(find_table("world-sentences", []).covered) == set(LANGUAGES)


def test_languages_without_sizes_are_covered_or_not() -> None:
    table = find_table("use-multilingual", [])
    assert [table.level(name) for name in ("pt_BR", "hi")] == ["covered", "not covered"]
    assert NO_TABLE.level("en") == "not known" and NO_TABLE.share("en") is None


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("source: mine\nmib: {en: 3, sw: 1}\n", encoding="utf-8")
    assert find_table("mine.yaml", [], tmp_path).share("sw") == 0.25
    (tmp_path / "bad.yaml").write_text("source: mine\nmibs: {en: 3}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="mibs"):
        find_table("bad.yaml", [], tmp_path)
    with pytest.raises(RecipeError, match="neither a file nor one of cc100, use-multilingual"):
        find_table("cc10", [])


def test_levels_go_from_most_to_least() -> None:
    assert order_levels(["low", "not known", "high", "low"]) == ["high", "low", "not known"]
    assert order_levels(["not pictured", "pictured"]) == ["not pictured", "pictured"]
    assert base_language("zh-Hans") == "zh"
