"""What the source of an anchor spec names on this machine.

It only looks whether paths exist; it opens nothing. The string itself is read by
`modalbind.recipe.anchor_spec`, so that a recipe can be checked without this package.
"""

from __future__ import annotations

from pathlib import Path

from modalbind.recipe.anchor_spec import LOCAL_DIR, WORLD, AnchorName, is_path, parse_spec

__all__ = [
    "LOCAL_DIR",
    "WORLD",
    "AnchorName",
    "local_path",
    "parse_spec",
    "split_files",
    "world_folder",
]


def split_files(source: str) -> tuple[Path, ...]:
    """Return the files of `FILE[,FILE...]`; a file whose own name has a comma is one file."""
    if Path(source).expanduser().is_file():
        return (Path(source).expanduser(),)
    return tuple(Path(part.strip()).expanduser() for part in source.split(",") if part.strip())


def local_path(name: AnchorName) -> Path | None:
    """Return the folder or file on this machine that the source names, absolute, or None.

    The path is returned even if nothing is there any more: a space whose folder is gone is still
    the same space to a cache that knows it.
    """
    if name.source == WORLD and name.kind in ("openclip", "transformers"):
        return world_folder(name.kind)
    source = name.source.removeprefix(LOCAL_DIR)
    if not is_path(name.source) or "://" in source:
        return None
    return Path(source).expanduser().absolute()


def world_folder(kind: str) -> Path:
    """Return the folder of the small space that ships with modalbind.

    Args:
        kind: `openclip`, of pictures and text, or `transformers`, of sentences.
    """
    from modalbind.world import anchor_folder, sentence_folder  # draws pictures, so is not light

    return (anchor_folder() if kind == "openclip" else sentence_folder()).absolute()
