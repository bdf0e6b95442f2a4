"""Fixtures of the core's tests: no network, a cache of their own, and a toy modality."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import their helper modules by name


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give every test an empty anchor cache, and refuse connections that leave the machine."""
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def toy_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a made-up world, and the toy modality installed."""
    import toy

    monkeypatch.syspath_prepend(str(toy.PLUGIN))
    monkeypatch.setenv("MODALBIND_PLUGINS", "toy")
    folder = tmp_path / "world"
    folder.mkdir()
    toy.write_world(folder)
    yield folder
    sys.modules.pop("toy_modality", None)
