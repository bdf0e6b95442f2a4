"""Every error modalbind raises on purpose, in one tree.

    ModalbindError                 exit code 1: it failed while running
    ├── InputError                 exit code 2: the request or its data is wrong
    │   ├── RecipeError            a recipe or an override does not say something valid
    │   ├── PluginError            a plugin cannot be used
    │   │   ├── PluginLoadError        it is installed and broken
    │   │   └── UnknownNameError       nothing installed offers that name
    │   │       └── UnknownModalityError
    │   ├── ManifestError          a list of pairs cannot be read, or contradicts itself
    │   ├── DataError              too many samples are broken, or none is left
    │   ├── AnchorError            an anchor space cannot be opened, or lacks a key
    │   │   └── AnchorMismatchError    two anchor spaces were expected to be one
    │   └── RunError               a run directory is taken, incomplete or damaged
    ├── BrokenSampleError          one sample cannot be used; carries a countable reason
    ├── ShapeError                 a tensor has another shape than the contract says
    ├── NonFiniteError             a loss, gradient or score is not a number
    ├── CorruptFileError           stored bytes differ from their checksum
    └── PeerError                  another process of the same run ended, or is lost

A message is one line: what was asked; what was found; what to do.
"""

from __future__ import annotations


class ModalbindError(Exception):
    """Base of all errors raised on purpose; the message is written for the user."""

    exit_code = 1


class InputError(ModalbindError):
    """What the user asked for, or gave, is wrong; nothing has been started."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe or an override is wrong; the message lists every mistake."""


class PluginError(InputError):
    """A plugin cannot be used."""


class PluginLoadError(PluginError):
    """A plugin is installed but broken; raised from its cause."""


class UnknownNameError(PluginError):
    """Nothing that is installed offers the name that was asked for."""


class UnknownModalityError(UnknownNameError):
    """No installed plugin offers this modality."""


class ManifestError(InputError):
    """A list of pairs cannot be read, or contradicts itself."""


class DataError(InputError):
    """Too many samples are broken, or nothing is left to train or test on."""


class AnchorError(InputError):
    """An anchor space cannot be opened, or has no embedding for a key."""


class AnchorMismatchError(AnchorError):
    """Two anchor spaces that must be the same one are not."""


class RunError(InputError):
    """A run directory is taken, incomplete or damaged."""


class BrokenSampleError(ModalbindError):
    """One sample cannot be used.

    Args:
        reason: Short and countable, the same for all samples broken in this way
            (`missing`, `empty`, `truncated`, `not_finite`, `undecodable`, `too_long`).
        detail: What was found, for this sample.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Join both into the message."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[BrokenSampleError], tuple[str, str]]:
        """Pickle by both arguments, so that a worker process can report it."""
        return type(self), (self.reason, self.detail)


class ShapeError(ModalbindError, ValueError):
    """A tensor has another shape than the contract says."""


class NonFiniteError(ModalbindError, ArithmeticError):
    """A loss, gradient, embedding or score is not a finite number."""


class CorruptFileError(ModalbindError):
    """Stored bytes differ from their checksum."""


class PeerError(ModalbindError):
    """Another process of the same run ended, or is lost, so this one cannot go on.

    Args:
        message: Which one, and how.
        exit_code: Of that process.
        was_said: It has printed that itself.
    """

    def __init__(self, message: str, exit_code: int = 1, *, was_said: bool = False) -> None:
        """Take over the exit code."""
        super().__init__(message)
        self.exit_code = exit_code
        self.was_said = was_said
