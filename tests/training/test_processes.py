"""Runs by several real processes against the same by one; every figure comes from another count.

All groups are started once, by processes_worker.py; what they left behind is checked here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file

from modalbind.data.loader import AnchorBank, FeatureSet, TrainingBatches
from modalbind.data.samples import Sample
from modalbind.processes import share_of

WORKER = Path(__file__).with_name("processes_worker.py")
STEPS_PER_EPOCH = (11, 11, 2)
"""Batches of the 24 training samples."""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all groups have written to."""
    folder = tmp_path_factory.mktemp("processes")
    settings = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    settings |= {"MODALBIND_CACHE": str(folder / "cache"), "MODALBIND_PLUGINS": "toy"}
    here = [str(toy.PLUGIN.parent), str(toy.PLUGIN), os.environ.get("PYTHONPATH", "")]
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, here))
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def codes(left: Path) -> dict[str, list[int]]:
    return json.loads((left / "codes.json").read_text())


def printed(left: Path, group: str, count: int) -> list[str]:
    return [(left / f"{group}-{rank}.txt").read_text() for rank in range(count)]


def errors(texts: list[str]) -> list[str]:
    return [line for text in texts for line in text.splitlines() if "modalbind: error" in line]


def load_steps(left: Path, count: int, micro: str) -> list[dict]:
    return [
        torch.load(left / f"steps{count}-{rank}.pt", weights_only=True)[micro]
        for rank in range(count)
    ]


@pytest.mark.parametrize("micro", ["None", "2", "bank"])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_and_weights_are_those_of_one_process(left, codes, count, micro):
    assert codes[f"steps{count}"] == [0] * count, printed(left, f"steps{count}", count)
    (single,) = load_steps(left, 1, "bank" if micro == "bank" else "None")
    for found in load_steps(left, count, micro):
        for gradient, expected in zip(found["gradients"], single["gradients"], strict=True):
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["weights"], single["weights"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found["scale"], single["scale"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("micro", ["None", "2", "bank"])
@pytest.mark.parametrize("count", [2, 3])
def test_all_processes_hold_the_same_bits(left, count, micro):
    first, *others = load_steps(left, count, micro)
    for other in others:
        assert torch.equal(other["weights"], first["weights"])
        assert torch.equal(other["scale"], first["scale"])


@pytest.mark.parametrize("micro", ["None", "2", "bank"])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_travel_once_a_step(left, count, micro):
    """Seen from DistributedDataParallel's own hook: numbers reduced, and rounds of reducing."""
    for found in load_steps(left, count, micro):
        assert found["reduced"] == [[len(found["weights"]), 1]] * 6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_process_reads_its_own_rows_alone(left, count):
    shares = [found["shares"] for found in load_steps(left, count, "None")]
    for step, batch in enumerate(STEPS_PER_EPOCH * 2):
        rows = [share[step][1] for share in shares]
        assert {share[step][0] for share in shares} == {batch}
        # A process without a row of its own reads one, which is left out.
        assert sum(rows) == max(batch, count)
        assert max(rows) - min(rows) <= 1


def test_shares_are_the_batch_in_order():
    samples = [Sample(str(number), 0, (), (), "") for number in range(10)]
    features = FeatureSet(samples, None)  # type: ignore[arg-type]
    banks: dict[str, AnchorBank] = {}
    order = [7, 3, 9, 1, 5]
    for count in (2, 3, 4):
        shares = [
            TrainingBatches(
                features, banks, {}, batch_size=5, source_weights=[1.0], share=(rank, count)
            ).slice_own(order)
            for rank in range(count)
        ]
        assert [index for share in shares for index in share] == order
    lengths = [[len(share_of(n, rank, 7)) for rank in range(7)] for n in range(30)]
    assert [sum(each) for each in lengths] == list(range(30))
    assert all(max(each) - min(each) <= 1 for each in lengths)


@pytest.mark.parametrize("count", [2, 3])
def test_a_run_ends_as_with_one_process(left, codes, count):
    assert codes[f"run{count}"] == [0] * count, printed(left, f"run{count}", count)
    single, found = (load_file(left / f"run{n}" / "tower.safetensors") for n in (1, count))
    for name, expected in single.items():
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)
    reports = [json.loads((left / f"run{n}" / "report.json").read_text()) for n in (1, count)]
    assert reports[0]["retrieval"] == reports[1]["retrieval"]
    assert reports[0]["data"] == reports[1]["data"]
    assert reports[0]["data"]["skipped"] == {"empty": 2}
    assert reports[1]["cost"]["pairs_seen"] == reports[0]["cost"]["pairs_seen"] > 0


@pytest.mark.parametrize("count", [2, 3])
def test_the_first_process_alone_writes_and_prints(left, count):
    """The others have an audit hook that tells of every write into the run directory."""
    first, *others = printed(left, f"run{count}", count)
    assert f"written to {left / f'run{count}'}" in first
    assert others == [""] * (count - 1)
    steps = [
        json.loads(line)["step"]
        for line in (left / f"run{count}" / "metrics.jsonl").read_text().splitlines()
        if '"kind": "step"' in line
    ]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("name", "before", "after"), [("two_two", 2, 2), ("two_one", 2, 1), ("one_two", 1, 2)]
)
def test_a_terminated_run_goes_on_with_another_number(left, codes, name, before, after):
    """One process alone gets SIGTERM: all leave after the same step, with a checkpoint."""
    assert codes[f"{name}-a"] == [143] * before
    assert codes[f"{name}-b"] == [0] * after, printed(left, f"{name}-b", after)
    assert "going on from step 5" in printed(left, f"{name}-b", after)[0]
    found = load_file(left / name / "tower.safetensors")
    for name_of, expected in load_file(left / "run1" / "tower.safetensors").items():
        torch.testing.assert_close(found[name_of], expected, atol=1e-5, rtol=1e-4)


def test_with_the_same_number_it_ends_in_the_same_bits(left):
    whole, resumed = (left / name / "tower.safetensors" for name in ("run2", "two_two"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_the_others_wait_for_a_long_evaluation(left, codes):
    assert codes["slow"] == [0, 0], printed(left, "slow", 2)


@pytest.mark.parametrize(("group", "victim"), [("killed", 1), ("stopped", 1), ("measuring", 0)])
def test_a_lost_process_ends_the_others_and_is_named(left, codes, group, victim):
    """In a step, where the others wait for its tensors, or while they wait for what it says."""
    assert codes[group] == [-9 if rank == victim else 1 for rank in range(3)]
    texts = printed(left, group, 3)
    for rank in {0, 1, 2} - {victim}:
        (line,) = errors([texts[rank]])
        assert f"a run of 3 processes asked for; rank {victim} is lost" in line
    assert not errors([texts[victim]])


@pytest.mark.parametrize(
    ("group", "count", "found"),
    [
        ("bad", 3, "nonsense.yaml asked for; no such file"),
        ("taken", 2, "there is a run already"),
        ("refused", 2, "one is gone; mend it"),
        ("evaluate", 2, "`evaluate` by 2 processes asked for"),
    ],
)
def test_wrong_input_ends_all_with_one_line(left, codes, group, count, found):
    assert codes[group] == [2] * count
    (line,) = errors(printed(left, group, count))
    assert found in line


def test_what_one_process_refuses_leaves_no_run(left):
    assert not (left / "refused").exists()
    assert not (left / "bad").exists()


def test_embeddings_of_three_processes_are_those_of_one(left, codes):
    assert codes["embed1"] == [0] and codes["embed3"] == [0, 0, 0], printed(left, "embed3", 3)
    one, three = (np.load(left / f"embedded{count}.npz") for count in (1, 3))
    assert one["toy"].tolist() == three["toy"].tolist()
    assert len(one["toy"]) == 12
    np.testing.assert_allclose(one["toy_vectors"], three["toy_vectors"], atol=1e-6)
    assert not list(left.glob(".embedded*"))
    assert printed(left, "embed3", 3)[1:] == ["", ""]


@pytest.mark.parametrize(("group", "count", "there"), [("fill2", 2, 0), ("fill3", 3, 10)])
def test_each_anchor_embedding_is_computed_by_one_process(left, codes, group, count, there):
    assert codes["fill1"] == [0] and codes[group] == [0] * count, printed(left, group, count)
    single = torch.load(left / "fill1-0.pt", weights_only=True)
    found = [torch.load(left / f"{group}-{rank}.pt", weights_only=True) for rank in range(count)]
    asked = [key for each in found for key in each["asked"]]
    assert sorted(asked) == sorted(f"text {number}" for number in range(there, 40))
    assert min(len(each["asked"]) for each in found) > 0
    for each in found:
        assert torch.equal(each["vectors"], single["vectors"])
        assert each["counts"] == (40 - there, there)


@pytest.mark.parametrize("count", [2, 3])
def test_each_sample_is_checked_by_one_process(left, codes, count):
    assert codes[f"check{count}"] == [0] * count, printed(left, f"check{count}", count)
    found = [
        torch.load(left / f"check{count}-{rank}.pt", weights_only=True) for rank in range(count)
    ]
    tried = [key for each in found for key in each["tried"]]
    assert sorted(map(int, tried)) == list(range(17))
    bad = [3, 8, 13]
    for each in found:
        assert len(each["tried"]) in {17 // count, 17 // count + 1}
        assert each["kept"] == [str(number) for number in range(17) if number not in bad]
        assert each["broken"] == tuple((str(n), "empty", f"{n} has nothing") for n in bad)


def test_a_fully_sharded_tower_has_the_gradients_of_a_whole_one(left, codes):
    assert codes["fsdp"] == [0, 0], printed(left, "fsdp", 2)
    for rank in range(2):
        found = torch.load(left / f"fsdp-{rank}.pt", weights_only=True)
        for name, whole in found["whole"].items():
            assert whole.abs().max() > 1e-3
            torch.testing.assert_close(found["sharded"][name], whole, atol=1e-5, rtol=0)
