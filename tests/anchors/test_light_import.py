from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "numpy", "transformers", "open_clip", "PIL")


def test_options_and_spec_import_nothing_heavy() -> None:
    code = (
        "import sys, modalbind.anchors, modalbind.anchors.options, modalbind.anchors.spec\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
