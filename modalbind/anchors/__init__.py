"""Frozen embedding spaces: open one by its spec, and read its embeddings through the cache.

Importing this imports neither torch nor a model library; opening an anchor does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalbind.anchors.spec import AnchorName, parse_spec
from modalbind.errors import AnchorError
from modalbind.interfaces import AnchorSpec, Options

if TYPE_CHECKING:
    from modalbind.anchors.cache import AnchorCache
    from modalbind.anchors.opened import OpenAnchor
    from modalbind.recipe.schema import AnchorSection

__all__ = ["AnchorName", "open_anchor", "parse_spec"]


def open_anchor(
    section: AnchorSection,
    spec: AnchorSpec,
    cache: AnchorCache,
    device: str = "cpu",
    options: Options | None = None,
) -> OpenAnchor:
    """Open the anchor space of a recipe, its weights only if the cache does not know it.

    Args:
        section: The recipe's section.
        spec: The registered kind that `section.spec` names.
        cache: Where its embeddings are kept.
        device: Where its weights compute, unless its options say so.
        options: Its options, already validated; default: `section.options`, validated here.

    Raises:
        AnchorError: If the spec is malformed or of another kind, or the space cannot be opened.
    """
    from modalbind.anchors.opened import OpenAnchor

    name = parse_spec(section.spec)
    if name.kind != spec.name:
        raise AnchorError(
            f"asked to open {section.spec!r} as kind {spec.name!r}; it is of kind {name.kind!r}; "
            "look the kind up with modalbind.anchors.parse_spec"
        )
    chosen = options if options is not None else spec.options.model_validate(section.options)
    if getattr(chosen, "device", "") is None:
        chosen = chosen.model_copy(update={"device": device})
    return OpenAnchor(section, name, spec, chosen, cache)
