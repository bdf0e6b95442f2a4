import pytest

from modalbind.errors import AnchorError
from modalbind.recipe.anchor_spec import absolute_spec, parse_spec


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


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("precomputed:a.npz, sub/b@1.npz", "precomputed:{here}/a.npz,{here}/sub/b@1.npz"),
        ("precomputed:/x/a.npz", "precomputed:/x/a.npz"),
        ("precomputed:one, two.npz", "precomputed:{here}/one, two.npz"),
        ("openclip:local-dir:models/a@b", "openclip:local-dir:{here}/models/a@b"),
        ("transformers:./model", "transformers:{here}/model"),
        ("transformers:model", "transformers:{here}/model"),
        ("transformers:absent", "transformers:absent"),
        ("transformers:org/name@rev", "transformers:org/name@rev"),
        ("openclip:ViT-B-32@weights.pt", "openclip:ViT-B-32@{here}/weights.pt"),
        ("openclip:ViT-B-32@laion", "openclip:ViT-B-32@laion"),
        ("openclip:hf-hub:org/name", "openclip:hf-hub:org/name"),
        ("openclip:world", "openclip:world"),
        ("openclip:", "openclip:"),
    ],
)
def test_paths_in_a_spec_become_absolute(tmp_path, monkeypatch, spec, expected):
    """`world` is also a folder here, and `one, two.npz` one file."""
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "world"):
        (tmp_path / folder).mkdir()
    for file in ("weights.pt", "one, two.npz"):
        (tmp_path / file).touch()
    found = absolute_spec(spec)
    assert found == expected.format(here=tmp_path)
    monkeypatch.chdir("/")
    assert absolute_spec(found) == found


def test_files_below_a_folder_with_a_comma_stay_told_apart(tmp_path, monkeypatch):
    folder = tmp_path / "a,b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert absolute_spec("precomputed:a.npz,b.npz") == "precomputed:a.npz,b.npz"
