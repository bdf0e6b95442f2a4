"""Opening a frozen space by its spec alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.parts import open_space
from modalbind.errors import AnchorError, PluginError
from tests.anchors.conftest import text_item


def test_it_is_the_same_space_as_an_anchor_of_that_spec(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    space = open_space("transformers:world", cache=cache)
    assert space.modalities == ("text",)
    first = space.embed("text", [text_item("two small bells")])
    again = open_space("transformers:world", cache=cache)
    assert (again.embed("text", [text_item("two small bells")]) == first).all()
    assert again.reused == 1 and again.computed == 0, "through the cache"


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        ("world", {}, "kind:source"),
        ("transformers:world", {"poling": "mean"}, "options of transformers:world.*pooling"),
        ("transformers:/no/such", {}, "is no folder"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    spec: str, options: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(AnchorError, match=says):
        open_space(spec, options, cache=AnchorCache(tmp_path))


def test_an_unknown_kind_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="openclip"):
        open_space("open-clip:world", cache=AnchorCache(tmp_path))
