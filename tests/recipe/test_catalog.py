import sys
from dataclasses import replace

import pytest

from modalbind.errors import RecipeError
from modalbind.plugin_manager import Plugins
from modalbind.recipe import catalog
from modalbind.recipe.catalog import find_recipe, list_recipes


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "core"
    for name in ("smell/quickstart", "taste/quickstart", "taste/sour"):
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"summary: About {name}.\n")
    monkeypatch.setattr(catalog, "core_folder", lambda: folder)
    return folder


def test_listing_has_names_and_summaries(shipped, plugins):
    found = {entry.name: entry.summary() for entry in list_recipes(plugins)}
    assert found["taste/sour"] == "About taste/sour."
    assert list(found) == sorted(found)


def test_a_broken_file_harms_no_list(shipped, plugins):
    (shipped / "taste" / "bad.yaml").write_text("a: [")
    assert {e.name: e for e in list_recipes(plugins)}["taste/bad"].summary().startswith("broken: ")


def test_found_by_name_last_part_modality_and_file(shipped, plugins):
    assert find_recipe("taste/sour", plugins) == find_recipe("sour", plugins)
    assert find_recipe("quickstart", plugins, "taste").parent.name == "taste"
    file = shipped / "taste" / "sour.yaml"
    assert find_recipe(str(file), plugins) == file
    assert find_recipe(file, plugins) == file


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("quickstart", "several are called so: smell/quickstart of modalbind"),
        ("taste/sower", "did you mean 'taste/sour'"),
        ("suor", "did you mean 'taste/sour'"),
        ("zzzzzz", "name one of these"),
        ("absent.yaml", "no such file"),
    ],
)
def test_not_found(shipped, plugins, name, found):
    with pytest.raises(RecipeError, match=found):
        find_recipe(name, plugins)


def test_plugins_bring_their_own(shipped, plugins, tmp_path, monkeypatch):
    package = tmp_path / "lib" / "smell_with_recipes"
    (package / "recipes" / "smell").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name in ("own", "quickstart"):
        (package / "recipes" / "smell" / f"{name}.yaml").write_text("summary: x\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    core, smell = plugins.loaded
    bringing = Plugins((core, replace(smell, package="smell_with_recipes")))
    assert find_recipe("smell/own", bringing).is_relative_to(package)
    with pytest.raises(RecipeError, match="of modalbind, smell/quickstart of modalbind-smell"):
        find_recipe("smell/quickstart", bringing)
    assert "smell_with_recipes" not in sys.modules
