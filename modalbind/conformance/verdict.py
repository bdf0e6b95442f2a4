"""How a check says what it found: it returns, or raises one of these; and where to look."""

from __future__ import annotations

import inspect
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any


class ContractError(Exception):
    """The plugin does not keep a promise.

    Args:
        reason: What was asked and what was found, in one line.
        at: Class, function or method to look at; None takes the subject's factory.
    """

    def __init__(self, reason: str, at: Any = None) -> None:
        """Keep the place beside the message."""
        super().__init__(reason)
        self.at = at


class NotCheckedError(Exception):
    """The check cannot be tried here: a package, weights or data are missing."""


def require(condition: bool, reason: str, at: Any = None) -> None:
    """Raise `ContractError` unless the condition holds."""
    if not condition:
        raise ContractError(reason, at)


def locate(thing: Any) -> str:
    """Return `file:line` where a class, function, method or module is written, or ''."""
    if isinstance(thing, str):
        return thing
    if not (inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing)):
        thing = type(thing)
    try:
        path = inspect.getsourcefile(inspect.unwrap(thing)) or ""
        line = 1 if inspect.ismodule(thing) else inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ""
    return f"{shorten(path)}:{line}" if path else ""


def locate_in_traceback(trace: TracebackType | None, folder: Path | None) -> str:
    """Return `file:line` of the innermost frame of a traceback that lies below `folder`, or ''."""
    found = ""
    for frame, line in walk_tb(trace):
        path = Path(frame.f_code.co_filename)
        if folder is not None and path.is_relative_to(folder):
            found = f"{shorten(str(path))}:{line}"
    return found


def shorten(path: str) -> str:
    """Return a path relative to the current folder if it lies below, else as it is."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def one_line(error: BaseException) -> str:
    """Return an exception's message as one line, with its type where it is not ours."""
    message = " ".join(str(error).split())
    if isinstance(error, ContractError | NotCheckedError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
