"""The commands that look and do not train: `plugins`, `recipes`, `anchors`, `cache`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from modalbind.cli.output import Debug, Json, print_json, print_mapping, print_table
from modalbind.errors import CorruptFileError
from modalbind.plugin_manager import Plugins, load_plugins

SECONDS_A_DAY = 86_400


def _group(summary: str, list_all: Callable[[bool], None]) -> typer.Typer:
    """Return a group of commands that lists when none of them is named."""
    group = typer.Typer(help=summary, rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def default(context: typer.Context, json: Json = False, debug: Debug = False) -> None:
        if context.invoked_subcommand is None:
            list_all(json)

    @group.command("list", help="List them; the same as naming no command.")
    def list_command(json: Json = False, debug: Debug = False) -> None:
        list_all(json)

    return group


def _list_plugins(json: bool) -> None:
    rows = plugin_rows(load_plugins(strict=False))
    if json:
        print_json(rows)
        return
    print_table(
        ("plugin", "distribution", "version", "status", "adds"),
        [
            (row["name"], row["distribution"], row["version"], row["status"], _adds(row))
            for row in rows
        ],
        "no plugins",
    )


def plugin_rows(plugins: Plugins) -> list[dict[str, Any]]:
    """Return one row a plugin, the broken ones last, with what each adds or why it cannot."""
    working = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "status": "ok",
            "adds": {kind: [s.name for s in specs] for kind, specs in plugin.specs.items()},
        }
        for plugin in plugins.loaded
    ]
    broken = [
        {
            "name": failure.name,
            "distribution": failure.distribution,
            "version": failure.version,
            "status": "broken",
            "adds": {},
            "error": failure.reason,
            "hint": failure.hint,
        }
        for failure in plugins.failures
    ]
    return [*working, *broken]


def _adds(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['error']}; {row['hint']}"
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in row["adds"].items())


def _list_recipes(json: bool) -> None:
    from modalbind.recipe.catalog import list_recipes

    entries = list_recipes()
    if json:
        print_json([{**asdict(entry), "summary": entry.summary()} for entry in entries])
        return
    print_table(
        ("recipe", "from", "summary"),
        [(entry.name, entry.distribution, entry.summary()) for entry in entries],
        "no recipes",
    )


def _list_anchors(json: bool) -> None:
    plugins = load_plugins()
    rows = [
        {"kind": s.name, "summary": s.summary, "from": plugins.owner(s).distribution}
        for s in plugins.anchors
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ("kind", "from", "summary"), [(r["kind"], r["from"], r["summary"]) for r in rows], "none"
    )


def _list_cache(json: bool) -> None:
    from modalbind.cache_root import default_root
    from modalbind.upkeep import list_contents

    contents = list_contents(default_root())
    if json:
        print_json(asdict(contents))
        return
    rows = [
        (
            f"embeddings in {space.name or 'a space'}",
            space.fingerprint[:16],
            ", ".join(f"{modality} {count:,}" for modality, count in space.rows.items()),
            space.size_bytes,
        )
        for space in contents.spaces
    ]
    rows += [
        ("plain features", kept.name[: -64 + 16], f"samples {kept.samples:,}", kept.size_bytes)
        for kept in contents.features
    ]
    if contents.shard_indexes:
        total = sum(kept.size_bytes for kept in contents.shard_indexes)
        rows.append(("indexes of tar shards", "", f"shards {len(contents.shard_indexes):,}", total))
    print_table(
        ("kept", "name", "holds", "size"),
        [(*row[:3], f"{row[3] / 2**20:.1f} MiB") for row in rows],
        f"{contents.root} is empty",
    )


plugins_app = _group("What is installed: plugin, version, status, what it adds.", _list_plugins)
recipes_app = _group("What can be run by name.", _list_recipes)
anchors_app = _group("Kinds of frozen space, and which space a run is bound to.", _list_anchors)
cache_app = _group("Anchor embeddings, and what else is computed already.", _list_cache)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="Name or file.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print a recipe as it is written; with --json, as it is read, defaults included."""
    from modalbind.recipe.catalog import find_recipe
    from modalbind.recipe.load import load_recipe, resolve

    plugins = load_plugins()
    if json:
        resolved = resolve(load_recipe(name, (), plugins), plugins)
        print_json(resolved.recipe.model_dump(mode="json"))
        return
    print(find_recipe(name, plugins).read_text(encoding="utf-8"), end="")


@recipes_app.command("check")
def check_recipe(
    file: Annotated[str, typer.Argument(help="File or name.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a recipe whole, plugins' options included; every mistake is named at once."""
    from modalbind.recipe.load import load_recipe

    recipe = load_recipe(file)
    if json:
        print_json({"recipe": file, "modality": recipe.modality.name, "ok": True})
        return
    print(f"{file}: no mistakes")


@anchors_app.command("show")
def show_anchor(
    spec: Annotated[str, typer.Argument(help="Anchor spec, kind:source[@tag].")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Open an anchor space and print its fingerprint, dim and modalities."""
    from modalbind.anchors import open_anchor, parse_spec
    from modalbind.anchors.cache import AnchorCache
    from modalbind.recipe.schema import AnchorSection

    kind = load_plugins().anchor(parse_spec(spec).kind)
    anchor = open_anchor(AnchorSection(spec=spec), kind, AnchorCache())
    fingerprint, verified = anchor.verify()
    found = {
        "spec": spec,
        "space": anchor.name,
        "fingerprint": fingerprint,
        "verified": verified,
        "dim": anchor.dim,
        "modalities": list(anchor.modalities),
    }
    print_json(found) if json else print_mapping(found)


@anchors_app.command("verify")
def verify_anchor(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that the anchor of a run is still the one that it was aligned to."""
    from modalbind import pipeline

    found = pipeline.verify_anchor(run)
    print_json(found) if json else print_mapping(found)


@cache_app.command("verify")
def verify_cache(json: Json = False, debug: Debug = False) -> None:
    """Read every stored byte and compare checksums; fails if anything is damaged."""
    from modalbind.cache_root import default_root
    from modalbind.upkeep import verify_contents

    root = default_root()
    damages = verify_contents(root)
    if json:
        print_json({"root": root, "damaged": [asdict(damage) for damage in damages]})
    for damage in damages:
        raise CorruptFileError(
            f"cache {root} verified; {len(damages)} damaged files, first {damage.path}: "
            f"{damage.found}; try: modalbind cache prune"
        )
    if not json:
        print(f"{root}: all files are as they were written")


@cache_app.command("prune")
def prune_cache(
    name: Annotated[
        str | None,
        typer.Argument(help="Remove this space, or these features, by the first letters."),
    ] = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="Remove what no run used for so many days.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove damaged and abandoned files, and what is named."""
    from modalbind.cache_root import default_root
    from modalbind.upkeep import prune_contents

    unused_s = None if unused_days is None else unused_days * SECONDS_A_DAY
    removed = prune_contents(default_root(), name or None, unused_s)
    if json:
        print_json(asdict(removed))
        return
    print(f"{removed.files} files removed, {removed.size_bytes / 2**20:.1f} MiB")
