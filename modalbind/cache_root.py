"""Where everything lies that is computed once and kept: one folder, named by one variable."""

from __future__ import annotations

import os
from pathlib import Path

ROOT_VARIABLE = "MODALBIND_CACHE"
FEATURES = "features"
"""Folder of plain features below it."""


def default_root() -> Path:
    """Return `MODALBIND_CACHE`, or else `modalbind` in the platform's folder for caches."""
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("modalbind", appauthor=False))
