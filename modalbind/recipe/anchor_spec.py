"""Reads the one string that names an anchor space: `kind:source[@tag]`.

Does not open anything, and does not know which kinds exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from modalbind.errors import AnchorError

LOCAL_DIR = "local-dir:"
WORLD = "world"
"""Source of the small spaces that ship with modalbind."""
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")


class AnchorName(NamedTuple):
    """An anchor spec, taken apart.

    Attributes:
        kind: Which kind of anchor space, as `modalbind plugins` lists it.
        source: Model name, `hf-hub:ORG/NAME`, `local-dir:PATH`, folder, or files by comma.
        tag: Pretrained tag or revision; None if the spec has none.
    """

    kind: str
    source: str
    tag: str | None


def parse_spec(spec: str) -> AnchorName:
    """Take `kind:source[@tag]` apart.

    The kind ends at the first colon, so a source may hold more of them. A source that is a path,
    or exists as one, keeps every `@`; a table of vectors never has a tag.

    Raises:
        AnchorError: If the kind or the source is missing, or a tag is empty.

    Example:
        >>> parse_spec("openclip:ViT-B-32@laion2b_s34b_b79k").tag
        'laion2b_s34b_b79k'
        >>> parse_spec("openclip:local-dir:/models/a@b").source
        'local-dir:/models/a@b'
    """
    kind, colon, rest = spec.strip().partition(":")
    if not (kind and colon and rest):
        raise AnchorError(
            f"asked for anchor {spec!r}; it is not of the form kind:source[@tag]; "
            "write for example openclip:world or precomputed:FILE.npz"
        )
    if "@" not in rest or kind == "precomputed" or is_path(rest):
        return AnchorName(kind, rest, None)
    source, _, tag = rest.partition("@")
    if not (source and tag):
        raise AnchorError(
            f"asked for anchor {spec!r}; the part before or after '@' is empty; "
            "write kind:source@tag, or kind:source"
        )
    return AnchorName(kind, source, tag)


def absolute_spec(spec: str) -> str:
    """Return the spec with the paths in it made absolute, so that it means the same everywhere.

    What is not a path, or no spec at all, comes back as it is.

    Example:
        >>> absolute_spec("openclip:local-dir:/models/a")
        'openclip:local-dir:/models/a'
        >>> absolute_spec("openclip:ViT-B-32@laion2b_s34b_b79k")
        'openclip:ViT-B-32@laion2b_s34b_b79k'
    """
    try:
        name = parse_spec(spec)
    except AnchorError:
        return spec
    if name.kind == "precomputed":
        return f"{name.kind}:{_absolute_files(name.source)}"
    if name.source.startswith(LOCAL_DIR):
        return f"{name.kind}:{LOCAL_DIR}{absolute_path(name.source.removeprefix(LOCAL_DIR))}"
    if name.tag is not None:  # a file of weights may stand in its place
        is_file = Path(name.tag).expanduser().is_file()
        tag = absolute_path(name.tag) if is_file else name.tag
        return f"{name.kind}:{name.source}@{tag}"
    # A folder that is called like a model of OpenCLIP is none of its sources, nor is one that is
    # called like the space that ships with modalbind.
    is_folder = (
        name.kind != "openclip"
        and name.source != WORLD
        and is_path(name.source)
        and "://" not in name.source
    )
    return f"{name.kind}:{absolute_path(name.source) if is_folder else name.source}"


def absolute_path(path: str) -> str:
    """Return a path from the top of the file system, `~` written out; links are not followed."""
    return str(Path(path).expanduser().absolute())


def _absolute_files(source: str) -> str:
    files = [source] if Path(source).expanduser().is_file() else source.split(",")
    found = [absolute_path(file.strip()) for file in files if file.strip()]
    # A folder with a comma in its name cannot be told from two files.
    return source if len(found) > 1 and any("," in file for file in found) else ",".join(found)


def is_path(source: str) -> bool:
    """Say whether a source is a path on this machine, by its form or because it exists."""
    if source.startswith((LOCAL_DIR, *_PATH_STARTS)):
        return True
    return Path(source).exists()


SpaceName = Annotated[str, AfterValidator(absolute_spec)]
"""Type of an option that names a frozen space by its spec; paths in it become absolute."""
