"""Opens a frozen space by its spec: a part of a composed anchor, or a plugin's own encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modalbind.anchors import open_anchor, parse_spec
from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.frozen import pick_device
from modalbind.errors import AnchorError
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.mistakes import check_model
from modalbind.recipe.schema import AnchorSection

if TYPE_CHECKING:
    from modalbind.anchors.opened import OpenAnchor


def open_space(
    spec: str,
    options: Mapping[str, Any] | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 256,
    cache: AnchorCache | None = None,
) -> OpenAnchor:
    """Open a frozen space; its embeddings go through the cache that all runs share.

    Args:
        spec: `kind:source[@tag]`, of any kind that is installed.
        options: Of that kind, as a recipe has them.
        device: Where its weights compute, unless the options say so; `auto` takes an accelerator.
        batch_size: Items encoded at once.
        cache: Where embeddings are kept; default: the user's.

    Returns:
        The space: `name`, `dim`, `modalities`, `fingerprint`, `embed(modality, items)`.

    Raises:
        AnchorError: If the spec or an option is wrong, or it cannot be opened.
    """
    name = parse_spec(spec)
    kind = load_plugins().anchor(name.kind)
    chosen, mistakes = check_model(kind.options, dict(options or {}), ("options",))
    if mistakes:
        said = "; ".join(map(str, mistakes))
        raise AnchorError(f"options of {spec} asked for; {said}; mend them")
    section = AnchorSection(spec=spec, batch_size=batch_size)
    return open_anchor(
        section, kind, cache or AnchorCache(), str(pick_device(device)), options=chosen
    )
