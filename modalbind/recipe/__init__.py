"""Recipes: what a run does, said once in YAML and checked before anything is loaded."""

from modalbind.recipe.load import Resolved, dump_recipe, kind_of_data, load_recipe, resolve
from modalbind.recipe.schema import Recipe

__all__ = ["Recipe", "Resolved", "dump_recipe", "kind_of_data", "load_recipe", "resolve"]
