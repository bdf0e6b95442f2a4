"""How much of each language a text encoder learnt from: what is published, as a table.

Imports nothing heavy. The numbers are data (`shares.yaml`); this file only looks them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from modalbind.errors import RecipeError

AUTO = "auto"
HIGH_SHARE, MID_SHARE = 0.02, 0.002
"""Least share of a high and of a mid resource language: of CC-100 about ten and forty languages."""
LEVELS = ("high", "mid", "low", "covered", "not covered")


class LanguageTable(BaseModel):
    """What is known of one text encoder's languages; see the head of `shares.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    match: tuple[str, ...] = ()
    mib: Mapping[str, float] = {}
    covered: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = {}

    def share(self, language: str) -> float | None:
        """Return the language's share of all text, or None if sizes are not known."""
        if not self.mib:
            return None
        return self.mib.get(base_language(language), 0.0) / sum(self.mib.values())

    def level(self, language: str) -> str:
        """Return the resource level of a language, or the group that is declared for it."""
        base = base_language(language)
        share = self.share(language)
        if share is not None:
            by_share = "high" if share >= HIGH_SHARE else "mid" if share >= MID_SHARE else "low"
            return by_share if share > 0 else "not covered"
        if self.covered:
            return "covered" if base in self.covered else "not covered"
        declared = (name for name, languages in self.groups.items() if base in languages)
        return next(declared, UNKNOWN)


UNKNOWN = "not known"
"""Level of a language that no table tells of."""
NO_TABLE = LanguageTable(source="not known for this text encoder")


def base_language(tag: str) -> str:
    """Return the language of a tag without region and script.

    Example:
        >>> base_language("zh_CN"), base_language("pt-BR"), base_language("sw")
        ('zh', 'pt', 'sw')
    """
    return tag.replace("_", "-").partition("-")[0].lower()


def order_levels(levels: Sequence[str]) -> list[str]:
    """Return distinct levels from the most to the least resources; declared groups come first."""
    known = [level for level in LEVELS if level in levels]
    declared = [level for level in dict.fromkeys(levels) if level not in (*LEVELS, UNKNOWN)]
    return [*declared, *known, *([UNKNOWN] if UNKNOWN in levels else [])]


def find_table(asked: str, encoders: Sequence[str], root: Path | None = None) -> LanguageTable:
    """Find what is known of the languages of a text encoder.

    Args:
        asked: Name of a table, a YAML file of one, or `auto`.
        encoders: Spec and name of the text encoder; `auto` looks for a table that matches them.
        root: Folder that a file's path starts at.

    Raises:
        RecipeError: If there is no such table, or the file is none.
    """
    tables = _read_tables()
    if asked == AUTO:
        matching = (
            table
            for encoder in encoders
            for table in tables.values()
            if any(part in encoder for part in table.match)
        )
        return next(matching, NO_TABLE)
    if asked in tables:
        return tables[asked]
    path = (root or Path()) / Path(asked).expanduser()
    if not path.is_file():
        raise RecipeError(
            f"evaluation.language_shares asked for '{asked}'; it is neither a file nor one of "
            f"{', '.join(tables)}; name one of these, or auto"
        )
    try:
        return LanguageTable.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        first = " ".join(str(error).split())
        raise RecipeError(
            f"evaluation.language_shares asked for {path}; {first}; write source, and mib, "
            "covered or groups"
        ) from error


@cache
def _read_tables() -> dict[str, LanguageTable]:
    text = files("modalbind.languages").joinpath("shares.yaml").read_text("utf-8")
    return {
        name: LanguageTable.model_validate(table) for name, table in yaml.safe_load(text).items()
    }
