"""Run in a process of its own: imports a plugin's package and tells what that did.

Arguments: the module to import. Prints one line of JSON, the last of its output. Imports nothing
before the clock runs but the standard library.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time

HEAVY = (
    "accelerate",
    "cv2",
    "datasets",
    "jax",
    "librosa",
    "matplotlib",
    "open_clip",
    "pandas",
    "peft",
    "pyarrow",
    "scipy",
    "sklearn",
    "soundfile",
    "tensorflow",
    "timm",
    "torch",
    "torchaudio",
    "torchvision",
    "transformers",
)
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "shutil.copyfile")

network: list[str] = []
written: list[str] = []
_is_watching = [False]


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note connections and files that are written while a module is imported."""
    if not _is_watching[0]:
        return
    if event in NETWORK:
        network.append(f"{event} {arguments[-1]!r}")
    elif event in WRITING:
        written.append(f"{event} {arguments[0]!r}")
    elif event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and bool(set(mode) & set("wax+"))
        makes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if (writes or makes) and path != os.devnull:
            written.append(f"open {path!r}")


def main(module: str) -> None:
    """Import and call the hooks, watched; print what was seen."""
    start = time.perf_counter()
    importlib.import_module("modalbind.api")  # the yardstick
    bare_s = time.perf_counter() - start
    from modalbind import hookspecs

    sys.addaudithook(watch)
    tempfile.gettempdir()  # found out by writing a file; no doing of the plugin's
    before = set(sys.modules)
    _is_watching[0] = True
    start = time.perf_counter()
    plugin = importlib.import_module(module)
    for hook in vars(hookspecs):
        if hook.startswith("modalbind_") and callable(getattr(plugin, hook, None)):
            getattr(plugin, hook)()
    own_s = time.perf_counter() - start
    _is_watching[0] = False
    heavy = [name for name in HEAVY if name in sys.modules and name not in before]
    seen = {"bare_s": bare_s, "own_s": own_s, "heavy": heavy}
    sys.stdout.write("\n" + json.dumps({**seen, "network": network, "written": written}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
