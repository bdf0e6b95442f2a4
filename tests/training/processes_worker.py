"""Groups of real processes over gloo, and what they leave behind; run by test_processes.py.

`processes_worker.py FOLDER`, with the toy plugin on the path: torch and modalbind are imported
once, then every group is forked. Results are files: `<group>-<rank>.pt` of tensors,
`<group>-<rank>.txt` of what was printed, and `codes.json` with exit codes.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel would, at four seconds a process
import torch.distributed as dist
import toy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from modalbind import fit, pipeline
from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.options import PrecomputedOptions
from modalbind.cli import main
from modalbind.data.samples import Sample, check_samples
from modalbind.engine import build_engine
from modalbind.errors import BrokenSampleError, DataError
from modalbind.inputs import open_inputs
from modalbind.interfaces import API_VERSION, AnchorSpec
from modalbind.plugin_manager import build, load_plugins
from modalbind.processes import join
from modalbind.recipe import dump_recipe, resolve
from modalbind.recipe.schema import AnchorSection
from modalbind.together import embed_together
from modalbind.training import Aligner
from modalbind.types import text_item

LOST_AFTER_S = 2.0
STEPS = 6
VARIANTS = {
    "None": {},
    "2": {"micro_batch_size": 2},
    "bank": {"micro_batch_size": 2, "negatives": "bank", "lengths": {"start": 0.5, "until": 0.5}},
}
BROKEN = ("star2.json", "arrow5.json")
"""Of the test, in the shares of different processes."""
TEXTS = [f"text {number}" for number in range(40)]


def spawn(
    folder: Path,
    group: str,
    count: int,
    job: Callable[[int], int | None],
    stopped: int | None = None,
) -> list[int]:
    """Fork a group, let each member do the job, and return their exit codes.

    One that stops, neither dead nor alive, is killed when the others have ended.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    members = []
    for rank in range(count):
        if (member := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            with (folder / f"{group}-{rank}.txt").open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = 77
            try:
                code = job(rank) or 0
            except SystemExit as leaving:
                code = int(leaving.code)
            finally:
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        members.append(member)
    codes = {}
    for rank in sorted(range(count), key=lambda rank: rank == stopped):
        if rank == stopped:
            os.kill(members[rank], signal.SIGKILL)
        codes[rank] = os.waitstatus_to_exitcode(os.waitpid(members[rank], 0)[1])
    return [codes[rank] for rank in range(count)]


def compute_steps(folder: Path, count: int, rank: int) -> None:
    """Save gradients, weights and traffic of each step, for each variant."""
    found = {}
    for name, train in VARIANTS.items():
        recipe = write_recipe(folder, "steps", batch_size=11, **train).model_copy(
            update={"augment": ()}
        )
        resolved = resolve(recipe, load_plugins())
        engine = build_engine(resolved.recipe)
        inputs = open_inputs(resolved, AnchorCache(folder / "cache"), "cpu", lambda *_: None)
        tower = fit.build_run_tower(resolved, inputs)
        objective = build(resolved.objective, resolved.objective_options)
        aligner = Aligner(
            tower,
            objective,
            resolved.recipe.train,
            engine,
            sides=("text",),
            total_steps=STEPS,
            seed=0,
        )
        found[name] = record_steps(aligner, fit.build_batches(resolved, inputs), count)
    torch.save(found, folder / f"steps{count}-{rank}.pt")


def record_steps(aligner: Aligner, batches, count: int) -> dict:
    traffic: list[tuple[int, bool]] = []
    gradients, reduced, shares = [], [], []
    clip = aligner._clip

    def note_gradients(step: int) -> float:
        scale = aligner.scales["text"].log_scale
        everything = [*aligner.plain_tower.parameters(), scale]
        gradients.append(torch.cat([p.grad.flatten().clone() for p in everything]))
        return clip(step)

    def note_traffic(state, bucket):
        traffic.append((bucket.buffer().numel(), bucket.is_last()))
        return allreduce_hook(None, bucket)

    aligner._clip = note_gradients
    if count > 1:
        aligner.tower.register_comm_hook(None, note_traffic)

    def watched():
        for epoch, batch in batches.iterate(0, STEPS):
            shares.append((len(batch.samples), len(batch.features)))
            yield epoch, batch

    for result in aligner.run(watched(), 0):
        assert result.samples == shares[-1][0]
        reduced.append([sum(n for n, _ in traffic), sum(last for _, last in traffic)])
        traffic.clear()
    weights = torch.cat([p.detach().flatten() for p in aligner.plain_tower.parameters()])
    scale = aligner.scales["text"].log_scale.detach()
    return {
        "gradients": gradients,
        "weights": weights,
        "scale": scale,
        "reduced": reduced,
        "shares": shares,
    }


def write_recipe(folder: Path, name: str, **train: object):
    path = folder / "world"
    if not path.exists():
        path.mkdir()
        toy.write_world(path, broken=BROKEN)
    recipe = toy.build_recipe(
        path,
        name=name,
        data={
            "val_fraction": 0.25 if train.get("select_every") else 0.0,
            "max_broken_fraction": 0.1,
        },
        encoder={"kind": "toy", "dropout": 0.0},
        objective={"kind": "infonce", "temperature": 0.1},
        train={"epochs": 3, "batch_size": 8, "threads": 1, "checkpoint_every": 2, **train},
    )
    (folder / f"{name}.yaml").write_text(dump_recipe(recipe))
    return recipe


def run_align(folder: Path, name: str, out: str, *more: str) -> int:
    """Align by the command line; a process that is not the first must not write to the run."""

    def refuse(event: str, arguments: tuple) -> None:
        is_write = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if is_write and str(arguments[0]).startswith(str(folder / out)):
            sys.stdout.write(f"WROTE {event} {arguments[0]}\n")

    if join().rank > 0:
        sys.addaudithook(refuse)
    return main(
        ["align", "--recipe", str(folder / f"{name}.yaml"), "--out", f"{folder / out}", *more]
    )


def interrupted_at(step: int, number: int, victim: int, job: Callable[[], int]) -> int:
    """Do a job in which one process gets a signal as it ends a step."""
    take = Aligner._take_step

    def take_and_fall(self, at: int, *rest):
        result = take(self, at, *rest)
        if at == step and join().rank == victim:
            os.kill(os.getpid(), number)
        return result

    Aligner._take_step = take_and_fall
    return job()


def refuse_in(victim: int, job: Callable[[], int]) -> int:
    """Do a job in which one process alone finds the data wrong, and the others go on."""
    read = pipeline.open_inputs

    def read_or_refuse(*args, **kwargs):
        if join().rank == victim:
            raise DataError("all files asked for; one is gone; mend it")
        return read(*args, **kwargs)

    pipeline.open_inputs = read_or_refuse
    return job()


def killed_while_measuring(job: Callable[[], int]) -> int:
    def fall(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pipeline.measure = fall  # which the first process alone does
    return job()


def slow_measuring(job: Callable[[], int]) -> int:
    """Do a job in which the others wait for much longer than a lost process is waited for."""
    measure = pipeline.measure

    def measure_slowly(*args):
        time.sleep(2 * LOST_AFTER_S)
        return measure(*args)

    pipeline.measure = measure_slowly
    return job()


class LetterSpace:
    """Embeds a text by its letters, and notes which ones it was asked for."""

    name, dim, modalities, is_table = "letters", 4, ("text",), False
    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def compute_fingerprint(self) -> str:
        return "5" * 64

    def encode(self, modality, items):
        self.asked += [item.key for item in items]
        raw = torch.tensor([[*map(float, item.content_hash[:4])] for item in items]) + 1
        return nn.functional.normalize(raw, dim=1)


SPACES: list[LetterSpace] = []


def build_space(*_: object) -> LetterSpace:
    SPACES.append(LetterSpace())
    return SPACES[-1]


def fill_cache(folder: Path, group: str, rank: int) -> None:
    """Embed texts in all processes; some are in the cache before."""
    spec = AnchorSpec(
        name="letters",
        summary="Under test.",
        api_version=API_VERSION,
        build=f"{__name__}:build_space",
        options=PrecomputedOptions,
    )
    section = AnchorSection(spec="letters:x", batch_size=4)
    anchor = open_anchor(section, spec, AnchorCache(folder / "letters"))
    items = [text_item(text) for text in TEXTS]
    if rank == 0 and group == "fill3":
        anchor.embed("text", items[:10])
    join().meet()
    for space in SPACES:
        space.asked.clear()
    anchor.computed = anchor.reused = 0
    vectors = embed_together(anchor, "text", items, lambda *_: None)
    asked = [key for space in SPACES for key in space.asked if not key.startswith("probe:")]
    counts = (anchor.computed, anchor.reused)
    torch.save(
        {"vectors": vectors, "asked": asked, "counts": counts}, folder / f"{group}-{rank}.pt"
    )


def check_shares(folder: Path, count: int, rank: int) -> None:
    """Try samples, of which some are broken."""
    tried = []

    def load(sample: Sample) -> None:
        tried.append(sample.key)
        if int(sample.key) % 5 == 3:
            raise BrokenSampleError("empty", f"{sample.key} has nothing")

    samples = [Sample(str(number), 0, (), (), "") for number in range(17)]
    checked = check_samples(samples, load, 0.5)
    found = {"tried": tried, "kept": [s.key for s in checked.kept], "broken": checked.broken}
    torch.save(found, folder / f"check{count}-{rank}.pt")


def shard_fully(folder: Path, rank: int) -> None:
    """Save whole gradients of a tower that FSDP2 has wrapped layer group by layer group."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    from modalbind.training.gather import gather_rows

    tower, features, mask, anchors, objective = make_problem(folder)
    compute_loss(tower(features, mask), anchors, objective).backward()
    whole = {name: p.grad for name, p in tower.named_parameters()}
    tower.zero_grad()
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for group in tower.encoder.layer_groups():
        for module in group:
            fully_shard(module, mesh=mesh)
    fully_shard(tower, mesh=mesh)
    own = slice(2 * rank, 2 * rank + 2) if rank == 0 else slice(2, 6)
    rows = gather_rows(tower(features[own], mask[own]))
    compute_loss(rows, anchors, objective).backward()
    found = {name: p.grad.full_tensor() for name, p in tower.named_parameters()}
    wrapped = isinstance(tower, FSDPModule) and isinstance(tower.encoder.hidden, FSDPModule)
    assert wrapped and all(p.to_local().numel() < p.numel() for p in tower.parameters())
    torch.save({"whole": whole, "sharded": found}, folder / f"fsdp-{rank}.pt")
    dist.destroy_process_group()


def make_problem(folder: Path):
    resolved = resolve(write_recipe(folder, "fsdp"), load_plugins())
    inputs = open_inputs(resolved, AnchorCache(folder / "cache"), "cpu", lambda *_: None)
    tower = fit.build_run_tower(resolved, inputs)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(6, 5, 4, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor([5, 3, 4, 1, 2, 5])[:, None]
    anchors = nn.functional.normalize(torch.randn(6, toy.DIM, generator=generator), dim=1)
    return tower, features, mask, anchors, build(resolved.objective, resolved.objective_options)


def compute_loss(rows, anchors, objective):
    none = torch.zeros(6, 6, dtype=torch.bool)
    return objective(rows, anchors, torch.eye(6), none, torch.tensor(10.0), torch.tensor(0.0))


class Groups:
    """Starts groups one after the other, and keeps their exit codes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codes: dict[str, list[int]] = {}

    def start(
        self,
        name: str,
        count: int,
        job: Callable[[int], int | None],
        stopped: int | None = None,
    ) -> None:
        self.codes[name] = spawn(self.folder, name, count, job, stopped)

    def align(self, name: str, out: str, *more: str) -> Callable[[], int]:
        return lambda: run_align(self.folder, name, out, *more)

    def compare(self) -> None:
        """Do by one process what several do."""
        folder = self.folder
        for count in (1, 2, 3):
            self.start(f"steps{count}", count, partial(compute_steps, folder, count))
        write_recipe(folder, "run", select_every=1)
        for count in (1, 2, 3):
            run = self.align("run", f"run{count}")
            self.start(f"run{count}", count, lambda _, run=run: run())
        worlds = [
            str(folder / "world" / f"{label}{n}.json") for label in toy.LABELS for n in (0, 1)
        ]
        for count in (1, 3):
            out = str(folder / f"embedded{count}.npz")
            command = ["embed", str(folder / "run1"), "--modality", "toy", "--out", out, *worlds]
            self.start(f"embed{count}", count, lambda _, command=command: main(command))
        for count in (1, 2, 3):
            self.start(f"fill{count}", count, partial(fill_cache, folder, f"fill{count}"))
            shutil.rmtree(folder / "letters")
            self.start(f"check{count}", count, partial(check_shares, folder, count))
        self.start("fsdp", 2, partial(shard_fully, folder))

    def stop_and_go_on(self) -> None:
        """Terminate one process of a run, and go on with as many or others."""
        for name, before, after, victim in RESUMED:
            run, again = self.align("run", name), self.align("run", name, "--resume")
            stop = partial(interrupted_at, 5, signal.SIGTERM, victim, run)
            self.start(f"{name}-a", before, lambda _, stop=stop: stop())
            self.start(f"{name}-b", after, lambda _, again=again: again())

    def fail(self) -> None:
        """Lose processes, and ask for what cannot be."""
        os.environ["MODALBIND_LOST_AFTER_S"] = str(LOST_AFTER_S)
        self.start("slow", 2, lambda _: slow_measuring(self.align("run", "slow")))
        kill = partial(interrupted_at, 5, signal.SIGKILL, 1, self.align("run", "killed"))
        self.start("killed", 3, lambda _: kill())
        halt = partial(interrupted_at, 5, signal.SIGSTOP, 1, self.align("run", "stopped"))
        self.start("stopped", 3, lambda _: halt(), stopped=1)
        measuring = self.align("run", "measuring")
        self.start("measuring", 3, lambda _: killed_while_measuring(measuring))
        self.start("bad", 3, lambda _: self.align("nonsense", "bad")())
        self.start("taken", 2, lambda _: self.align("run", "run1")())
        self.start("refused", 2, lambda _: refuse_in(1, self.align("run", "refused")))
        self.start("evaluate", 2, lambda _: main(["evaluate", str(self.folder / "run1")]))


def run_all(folder: Path) -> None:
    groups = Groups(folder)
    groups.compare()
    groups.stop_and_go_on()
    groups.fail()
    (folder / "codes.json").write_text(json.dumps(groups.codes))


RESUMED = [("two_two", 2, 2, 1), ("two_one", 2, 1, 0), ("one_two", 1, 2, 0)]
"""Name, processes before and after, and which of them was told to terminate."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.modules["processes_worker"] = sys.modules["__main__"]
    __name__ = "processes_worker"
    run_all(Path(sys.argv[1]))
