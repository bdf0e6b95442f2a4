"""Reads MATLAB's files: the old format through scipy, version 7.3 (HDF5) through h5py.

Both packages are optional; one that is missing is named with the extra that brings it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalbind.api import InputError, PublishedFolder


def read_variables(
    source: PublishedFolder, name: str, variables: tuple[str, ...]
) -> dict[str, NDArray[Any]]:
    """Return variables of a file of MATLAB 5.

    Raises:
        InputError: If scipy is missing.
        ManifestError: If the file is absent, is none, or lacks a variable.
    """
    try:
        scipy: Any = import_module("scipy.io")
    except ImportError as error:
        raise _missing_package("scipy", "sunrgbd") from error
    path = source.open_path(name)
    try:
        found = scipy.loadmat(path, variable_names=list(variables), appendmat=False)
    except Exception as error:  # scipy raises whatever the damaged bytes lead it into
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unreadable(source, name, line) from error
    for variable in variables:
        if variable not in found:
            raise _unreadable(source, name, f"it has no '{variable}'")
    return {variable: np.asarray(found[variable]) for variable in variables}


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file of MATLAB 7.3; its arrays have their axes in reverse.

    Raises:
        InputError: If h5py is missing.
        OSError: If the file is none.
    """
    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise _missing_package("h5py", "nyu") from error
    with h5py.File(path, "r") as file:
        yield file


def read_texts(file: Any, variable: str) -> list[str]:
    """Return a cell array of texts of an open file of MATLAB 7.3."""
    references = np.asarray(file[variable]).ravel()
    return ["".join(map(chr, np.asarray(file[one]).ravel())) for one in references]


def _missing_package(package: str, extra: str) -> InputError:
    return InputError(
        f"MATLAB file asked for; package {package} is not installed; "
        f"pip install 'modalbind-depth[{extra}]'"
    )


def _unreadable(source: PublishedFolder, name: str, found: str) -> Exception:
    return source.error(
        f"file {name} asked for", found, f"get it anew from {source.publication.homepage}"
    )
