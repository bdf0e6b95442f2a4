"""Gradients over processes against those of one process; values would be right in any mode."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from modalbind.training.gather import gather_rows

WORKER = Path(__file__).with_name("gather_worker.py")


def load_worker():
    spec = importlib.util.spec_from_file_location("gather_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What three processes found, in order of rank."""
    folder = tmp_path_factory.mktemp("gather")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(3)]


@pytest.fixture(scope="module")
def single() -> dict:
    worker = load_worker()
    tower, log_scale, features, anchor = worker.make_problem()
    rows = functional.normalize(tower(features), dim=1)
    loss = worker.compute_loss(rows, anchor, log_scale)
    loss.backward()
    gradients = [parameter.grad for parameter in [*tower.parameters(), log_scale]]
    return {"rows": rows.detach(), "loss": loss.detach(), "gradients": gradients}


@pytest.mark.parametrize("processes", [2, 3])
def test_gradients_are_those_of_one_process(results, single, processes):
    for result in results[:processes]:
        found = result[processes]
        torch.testing.assert_close(found["rows"], single["rows"], atol=1e-6, rtol=0)
        torch.testing.assert_close(found["loss"], single["loss"], atol=1e-6, rtol=0)
        for gradient, expected in zip(found["gradients"], single["gradients"], strict=True):
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


def test_a_process_without_rows_takes_part(results):
    for result in results:
        assert result["empty"].tolist() == [[1, 1], [2, 2], [2, 2]]


def test_one_process_gets_its_own_rows_back():
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
