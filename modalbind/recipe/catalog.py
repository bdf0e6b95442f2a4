"""Finds recipes by name: the core's, and those that plugins bring in `<package>/recipes/`.

A recipe's name is its path below that folder without the suffix: `audio/quickstart`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from modalbind.errors import RecipeError
from modalbind.plugin_manager import CORE, Plugins, load_plugins, nearest
from modalbind.recipe.yaml_loader import read_yaml

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A recipe that can be asked for by name.

    Attributes:
        name: Path below the folder of recipes, without suffix.
        path: The file.
        distribution: Who brings it.
    """

    name: str
    path: Path
    distribution: str

    def summary(self) -> str:
        """Return its own one sentence; a file that cannot be read says so and harms no list."""
        try:
            return str(read_yaml(self.path).get("summary", ""))
        except RecipeError as error:
            return f"broken: {error}"


def core_folder() -> Path:
    """Return the core's recipes: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def list_recipes(plugins: Plugins | None = None) -> tuple[CatalogEntry, ...]:
    """Return every recipe, the core's first, each folder by name."""
    plugins = load_plugins() if plugins is None else plugins
    folders = [(CORE, core_folder())]
    for plugin in plugins.loaded:
        folder = _package_folder(plugin.package)
        if plugin.distribution != CORE and folder is not None:
            folders.append((plugin.distribution, folder / "recipes"))
    return tuple(entry for owner, folder in folders for entry in _walk(owner, folder))


def find_recipe(
    name_or_path: str | Path, plugins: Plugins | None = None, modality: str | None = None
) -> Path:
    """Return the file of a recipe.

    Args:
        name_or_path: A file, a name (`audio/quickstart`), or its last part if that is unique.
        plugins: Where to look beside the core; None loads them.
        modality: Prefers the recipe of this modality where a last part is not unique.

    Raises:
        RecipeError: If there is none, or more than one.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or name.endswith(SUFFIXES):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise RecipeError(f"recipe {name} asked for; no such file; try: modalbind recipes")
        return path
    entries = list_recipes(plugins)
    found = [entry for entry in entries if entry.name == name]
    found = found or [entry for entry in entries if entry.name == f"{modality}/{name}"]
    found = found or [entry for entry in entries if entry.name.rpartition("/")[2] == name]
    if len(found) == 1:
        return found[0].path
    if found:
        several = ", ".join(f"{entry.name} of {entry.distribution}" for entry in found)
        raise RecipeError(
            f"recipe '{name}' asked for; several are called so: {several}; "
            "give the whole name, or the file"
        )
    raise _unknown(name, entries)


def _unknown(name: str, entries: tuple[CatalogEntry, ...]) -> RecipeError:
    names = [entry.name for entry in entries]
    last_parts = {known.rpartition("/")[2]: known for known in names}
    near = nearest(name, names) or last_parts.get(nearest(name, last_parts) or "")
    remedy = f"did you mean '{near}'?" if near else "name one of these, or a .yaml file"
    return RecipeError(
        f"recipe '{name}' not found; available: {', '.join(names) or 'none'}; {remedy}"
    )


def _walk(owner: str, folder: Path) -> Iterator[CatalogEntry]:
    files = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    for path in sorted(files):
        yield CatalogEntry(path.relative_to(folder).with_suffix("").as_posix(), path, owner)


def _package_folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
