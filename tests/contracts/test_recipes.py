"""Every recipe that ships can be read, and every name and option in it is known."""

import pytest

from modalbind.plugin_manager import CORE, load_plugins
from modalbind.recipe import load_recipe, resolve
from modalbind.recipe.catalog import core_folder, list_recipes
from modalbind.recipe.yaml_loader import parse_yaml

FILES = sorted(core_folder().rglob("*.yaml"))


@pytest.fixture(scope="module")
def plugins():
    return load_plugins(strict=True)


def test_there_are_some(plugins):
    assert FILES
    assert len([e for e in list_recipes(plugins) if e.distribution == CORE]) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_resolves_and_says_what_it_is(path, plugins):
    resolved = resolve(load_recipe(path, plugins=plugins), plugins)
    assert resolve(resolved.recipe, plugins) == resolved
    assert resolved.modality.name == path.parent.name
    assert resolved.recipe.name
    assert resolved.recipe.summary
    assert path.read_text(encoding="utf-8").startswith("#")
    parse_yaml(path.read_text(encoding="utf-8"), str(path))


def test_modalities_name_recipes_that_exist(plugins):
    names = {entry.name for entry in list_recipes(plugins)}
    for spec in plugins.modalities:
        assert {spec.default_recipe, spec.quickstart_recipe} <= names
