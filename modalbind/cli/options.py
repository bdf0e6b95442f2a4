"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataFile = Annotated[
    str | None,
    typer.Option("--data", help="Your pairs: CSV, JSONL, Parquet, .tar shards.", metavar="FILE"),
]
Anchor = Annotated[
    str | None, typer.Option("--anchor", help="Anchor space, kind:source[@tag].", metavar="SPEC")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change the recipe, e.g. train.lr=1e-4.", metavar="KEY=VALUE"),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--out", help="Run directory; default: runs/<recipe>-<time>.", metavar="DIR"),
]
Root = Annotated[
    str | None,
    typer.Option("--root", help="Folder that paths in the data start at.", metavar="DIR"),
]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing run.")]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Run once per seed: 0,1,2.", metavar="LIST")
]
