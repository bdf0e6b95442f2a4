import pytest

from modalbind.errors import AnchorError
from modalbind.recipe.anchor_spec import parse_spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("openclip:ViT-B-32@laion", ("openclip", "ViT-B-32", "laion")),
        ("openclip:world", ("openclip", "world", None)),
        ("openclip:hf-hub:org/name", ("openclip", "hf-hub:org/name", None)),
        ("openclip:local-dir:/a@b/c", ("openclip", "local-dir:/a@b/c", None)),
        ("transformers:org/name@rev", ("transformers", "org/name", "rev")),
        ("transformers:./a@b", ("transformers", "./a@b", None)),
        ("precomputed:a@1.npz,b.npz", ("precomputed", "a@1.npz,b.npz", None)),
    ],
)
def test_parts(spec, expected):
    assert tuple(parse_spec(spec)) == expected


def test_a_path_that_exists_keeps_its_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model@2").mkdir()
    assert parse_spec("transformers:model@2").tag is None


@pytest.mark.parametrize("spec", ["", "openclip", "openclip:", ":x", "openclip:x@", "openclip:@x"])
def test_what_is_not_a_spec(spec):
    with pytest.raises(AnchorError, match="write"):
        parse_spec(spec)
