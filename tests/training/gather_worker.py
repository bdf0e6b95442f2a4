"""Several processes, each with the gradient of a global InfoNCE over its share of the rows.

Run by test_gather.py: `gather_worker.py FOLDER`. All processes form one group of three, the
first two another of two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel would, at four seconds a process
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from modalbind.objectives.infonce import infonce
from modalbind.training.gather import gather_rows

SIZES = {3: (4, 1, 3), 2: (2, 6)}
"""Rows of each process: uneven; eight in all."""


def make_problem() -> tuple[nn.Module, nn.Parameter, Tensor, Tensor]:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 6))
    log_scale = nn.Parameter(torch.tensor(1.5))
    return tower, log_scale, torch.randn(8, 5), functional.normalize(torch.randn(7, 6), dim=1)


def compute_loss(embeddings: Tensor, anchor: Tensor, log_scale: Tensor) -> Tensor:
    positives = torch.eye(8, 7)
    excluded = torch.zeros(8, 7, dtype=torch.bool)
    excluded[7, 2] = excluded[1, 4] = True
    return infonce(embeddings, anchor, positives, excluded, log_scale.exp())


def compute_gradients(rank: int, group: dist.ProcessGroup | None, sizes: tuple[int, ...]):
    tower, log_scale, features, anchor = make_problem()
    wrapped = DistributedDataParallel(tower, process_group=group)
    own = features.split(sizes)[rank]
    rows = gather_rows(functional.normalize(wrapped(own), dim=1), group)
    loss = compute_loss(rows, anchor, log_scale)
    loss.backward()
    gradients = [parameter.grad for parameter in [*tower.parameters(), log_scale]]
    return {"rows": rows.detach(), "loss": loss.detach(), "gradients": gradients}


def run(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    pair = dist.new_group([0, 1])
    found = {3: compute_gradients(rank, None, SIZES[3])}
    if rank < 2:
        found[2] = compute_gradients(rank, pair, SIZES[2])
    # A process may run out of rows altogether.
    empty = gather_rows(torch.full((rank, 2), float(rank), requires_grad=True))
    found["empty"] = empty.detach()
    empty.sum().backward()
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Forked, so that torch is imported once; safe as nothing has run in this process yet.
    start_processes(run, (sys.argv[1],), nprocs=3, start_method="fork")
