import pytest

from modalbind.errors import RecipeError
from modalbind.recipe.overrides import apply_overrides


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr=1e-4", {"train": {"lr": 1e-4, "epochs": 3}}),
        ("train={lr: 2}", {"train": {"lr": 2}}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": None}),
        ("new.inner.key=[1, x]", {"new": {"inner": {"key": [1, "x"]}}}),
        ("augment.1.kind=b", {"augment": [{"kind": "a"}, {"kind": "b"}]}),
        ("augment.0.kind=c", {"augment": [{"kind": "c"}]}),
        ("rows.0.kind=c", {"rows": [{"kind": "c"}]}),
        ("anchor.spec=openclip:local-dir:/a@b", {"anchor": {"spec": "openclip:local-dir:/a@b"}}),
    ],
)
def test_override(override, expected):
    raw = {"train": {"lr": 1.0, "epochs": 3}, "augment": [{"kind": "a"}]}
    assert apply_overrides(raw, [override]) == {**raw, **expected}


def test_the_argument_is_not_changed_and_the_last_wins():
    raw = {"train": {"lr": 1.0}}
    assert apply_overrides(raw, ["train.lr=2", "train.lr=3"]) == {"train": {"lr": 3}}
    assert raw == {"train": {"lr": 1.0}}


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("train.lr", "not key=value"),
        ("=3", "not key=value"),
        ("train..lr=3", "not key=value"),
        ("name.x=3", "inside the single value 'n'"),
        ("augment.x=3", "not an item of a list of 1"),
        ("augment.5.kind=3", "use 0 to 1"),
        ("train.lr=[1", "--set train.lr=\\[1:1 cannot be read"),
        ("train.lr=!!python/name:os.system", "tag"),
    ],
)
def test_mistakes(override, found):
    with pytest.raises(RecipeError, match=found):
        apply_overrides({"name": "n", "train": {"lr": 1}, "augment": [{}]}, [override])


def test_all_mistakes_at_once():
    with pytest.raises(RecipeError, match=r"2 mistakes: \(1\) .*'a'.* \(2\) .*'b'"):
        apply_overrides({}, ["a", "b"])
