"""What the specs of a plugin must be like; dataclasses check no types.

Does not load plugins and does not know which names are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from modalbind.errors import ModalbindError
from modalbind.interfaces import (
    API_VERSION,
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    ObjectiveSpec,
    Options,
    Spec,
)

KINDS: dict[str, tuple[str, type[Spec]]] = {
    "modality": ("modalbind_modalities", ModalitySpec),
    "encoder": ("modalbind_encoders", EncoderSpec),
    "dataset": ("modalbind_datasets", DatasetSpec),
    "augmentation": ("modalbind_augmentations", AugmentationSpec),
    "anchor": ("modalbind_anchors", AnchorSpec),
    "objective": ("modalbind_objectives", ObjectiveSpec),
}
STAGES = ("sample", "features", "batch")


class InvalidPluginError(ModalbindError):
    """What a plugin offers breaks the contract."""

    def __init__(self, found: str, hint: str) -> None:
        """Say what was found wrong, and how to mend it."""
        super().__init__(found)
        self.hint = hint


def check_spec(kind: str, spec: Any, distribution: str) -> None:
    """Check one spec of a plugin.

    Args:
        kind: Which hook returned it, a key of `KINDS`.
        spec: What the hook returned, of any type.
        distribution: Whose it is, for the message.

    Raises:
        InvalidPluginError: With the first thing that is wrong, and how to mend it.
    """
    hook, expected = KINDS[kind]
    if not isinstance(spec, expected):
        raise broken_promise(
            distribution, f"{hook} returned {type(spec).__name__}, not {expected.__name__}"
        )
    if spec.api_version != API_VERSION:
        older = "modalbind" if _is_newer(spec.api_version) else distribution
        raise InvalidPluginError(
            f"{kind} '{spec.name}' has API version {spec.api_version}, modalbind has {API_VERSION}",
            f"try: pip install --upgrade {older}",
        )
    for problem in _problems(spec):
        raise broken_promise(distribution, f"{kind} {spec.name!r}: {problem}")


def _is_newer(version: object) -> bool:
    return isinstance(version, int) and version > API_VERSION


def _problems(spec: Any) -> Iterable[str]:
    """Yield what is wrong with the values of a spec; dataclasses check no types."""
    if not _matches(r"[a-z0-9][a-z0-9_-]*", spec.name):
        yield "name is not lower case letters, digits, '-' and '_'"
    if not _matches(r"\S[^\n]*", spec.summary):
        yield "summary is not one line of text"
    if not _matches(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec.build):
        yield f"build {spec.build!r} is not an import string like package.module:function"
    if not (isinstance(spec.options, type) and issubclass(spec.options, Options)):
        yield "options is not a subclass of modalbind.api.Options"
    modality = getattr(spec, "modality", "*")
    if modality != "*" and not _matches(r"[a-z0-9][a-z0-9_-]*", modality):
        yield f"modality {modality!r} is not a name"
    if isinstance(spec, AugmentationSpec) and spec.stage not in STAGES:
        yield f"stage {spec.stage!r} is not one of {', '.join(STAGES)}"
    if isinstance(spec, ModalitySpec):
        yield from _modality_problems(spec)


def _modality_problems(spec: Any) -> Iterable[str]:
    for attribute in ("unit", "default_recipe", "quickstart_recipe"):
        if not _matches(r"\S[^\n]*", getattr(spec, attribute)):
            yield f"{attribute} is not one line of text"
    if not isinstance(spec.suffixes, tuple):
        yield "suffixes is not a tuple"
    elif not all(_matches(r"\.[a-z0-9.]+", suffix) for suffix in spec.suffixes):
        yield "suffixes are not lower case with a dot"


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def overlap(first: Spec, second: Spec) -> bool:
    """Say whether two specs of a kind serve a modality in common, so need different names."""
    return serves(first, getattr(second, "modality", None)) or serves(
        second, getattr(first, "modality", None)
    )


def serves(spec: Spec, modality: str | None) -> bool:
    """Say whether a spec is for `modality`; None asks for any."""
    own = getattr(spec, "modality", None)
    return own in (None, "*") or modality in (None, own)


def broken_promise(distribution: str, found: str) -> InvalidPluginError:
    """Return the error of a plugin that only its authors can mend."""
    return InvalidPluginError(
        found, f"report it to the authors of {distribution}, or pip uninstall it"
    )
