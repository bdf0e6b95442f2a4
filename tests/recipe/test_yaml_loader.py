import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.errors import RecipeError
from modalbind.recipe.yaml_loader import MAX_BYTES, dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3", 3),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("2026-01-02", "2026-01-02"),
        (".inf", ".inf"),
        ("'5'", "5"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_as_in_yaml_1_2(text, value):
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


def billion_laughs():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3", "key 'a' again, first on line 1"),
        ("x:\n  a: 1\n  'a': 3", "f.yaml:3", "key 'a' again, first on line 2"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1", "tag"),
        ("a: !!str 5", "f.yaml:1", "tag"),
        ("a: ! 5", "f.yaml:1", "tag"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "f.yaml:3", "merge key"),
        ("1: a", "f.yaml:1", "not text"),
        ("? [a]\n: b", "f.yaml:1", "not text"),
        ("a: &x [*x]", "f.yaml:1", "inside its own anchor"),
        (billion_laughs(), "f.yaml:", "more than 20000 values"),
        ("[" * 200 + "]" * 200, "f.yaml:1", "more than 32 levels"),
        ("a: [1,", "f.yaml:1", "expected"),
        ("a: 1\n---\nb: 1", "f.yaml:2", "another document"),
        ("a: *nothing", "f.yaml:1", "undefined alias"),
        ("a: 1e999", "f.yaml:1", "too large"),
        ("a: " + "9" * 5000, "f.yaml:1", "too long"),
        ("a: \x07", "f.yaml", "unacceptable character"),
    ],
)
def test_refused_in_one_line_with_its_place(text, place, found):
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "f.yaml")
    message = str(caught.value)
    assert message.startswith(place)
    assert found in message
    assert "\n" not in message
    assert message.count(";") >= 2


def test_few_aliases_are_allowed():
    assert parse_yaml("a: &x [1]\nb: *x", "here") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a: \xff", "not UTF-8"),
        (b"- a", "not a mapping"),
        (b"", "not a mapping"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, found):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=found):
        read_yaml(path)


def test_absent_file_and_byte_order_mark(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "r.yaml") == {"a": 1}


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12) | (
    st.sampled_from(
        [
            "1e-4",
            "12:30",
            "yes",
            "null",
            "<<",
            "0x1",
            "010",
            "~",
            "",
            "=",
            "- a",
            "1_0",
            "\x85",
            "a\u2028b",
        ]
    )
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(values)
def test_what_is_dumped_is_read_back(value):
    found = parse_yaml(dump_yaml(value), "here")
    assert found == value
    assert repr(found) == repr(value)  # 1 and 1.0 and True are equal, and are not the same
