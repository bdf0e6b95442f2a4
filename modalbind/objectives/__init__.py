"""Objectives: pure functions of embeddings, one a file.

Each file holds the function and a frozen dataclass that carries its options; `build(options)`
makes the latter. Nothing is imported before it is used, so that listing the options, which lie
in this package too, does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalbind.objectives.scale import LogitScale

__all__ = ["LogitScale"]


def __getattr__(name: str) -> Any:
    if name == "LogitScale":
        from modalbind.objectives.scale import LogitScale

        return LogitScale
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
