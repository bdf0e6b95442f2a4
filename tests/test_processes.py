"""What one process does alone, and what several are refused; tests/training has real groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import toy
from accelerate.utils import DistributedType
from torch import nn

from modalbind import engine, fit, pipeline, sweeps
from modalbind.data.loader import Augmentations
from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.errors import InputError, PeerError, RecipeError
from modalbind.processes import Processes, check_alone, read_rank, settle
from modalbind.recipe.schema import TrainSection


def test_one_process_shares_with_nobody():
    alone = Processes(0, 1)
    assert alone.is_first
    assert alone.share(lambda: {"kept": object}) == {"kept": object}  # never written out
    assert alone.gather(3) == [3]
    alone.meet()
    assert settle(ValueError(), "line", 1) == ("line", 1)


def test_a_rank_without_a_number_of_processes_is_alone(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert read_rank() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert read_rank() == (3, 4)


def test_what_a_peer_has_said_is_not_said_again():
    alone = Processes(0, 1)
    assert alone.settle(PeerError("rank 1 ended", 2, was_said=True), "line", 2) == ("", 2)
    assert alone.settle(PeerError("rank 1 is lost"), "line", 1) == ("line", 1)


def test_what_several_cannot_share_is_refused(monkeypatch, toy_world, tmp_path):
    check_alone("anything")
    recipe = toy.build_recipe(toy_world)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for asked in (
        lambda: sweeps.sweep(recipe, seeds=(0, 1), out=tmp_path / "sweep"),
        lambda: pipeline.describe(recipe),
        lambda: pipeline.evaluate(write_run(tmp_path / "run", recipe)),
    ):
        with pytest.raises(InputError, match=r"by 4 processes asked for; .*without torchrun"):
            asked()
    assert not (tmp_path / "sweep").exists()


def write_run(path: Path, recipe) -> Path:
    from modalbind.recipe import dump_recipe

    path.mkdir()
    (path / "recipe.yaml").write_text(dump_recipe(recipe))
    return path


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)


@pytest.mark.parametrize(
    ("is_frozen", "augmentations", "found"),
    [
        (False, Augmentations(), "batch normalisation that trains by 2 processes asked for"),
        (True, Augmentations(batch=(lambda batch, _: batch,)), "an augmentation of whole batches"),
        (True, Augmentations(), None),
    ],
)
def test_what_mixes_rows_is_refused_to_several(monkeypatch, is_frozen, augmentations, found):
    encoder = Mixer()
    tower = Tower(encoder, LinearHead(4, 3), [encoder] if is_frozen else [])
    fit._check_rows_apart(tower, augmentations, TrainSection())
    monkeypatch.setattr(fit, "join", lambda: SimpleNamespace(count=2))
    if found is None:
        fit._check_rows_apart(tower, augmentations, TrainSection())
        return
    with pytest.raises(RecipeError, match=f"{found}.*whole batches in one process"):
        fit._check_rows_apart(tower, augmentations, TrainSection())


def test_batch_statistics_are_refused_in_parts_of_a_batch():
    """The gradient of parts would not be that of the batch; frozen ones have no statistics."""
    encoder, section = Mixer(), TrainSection(micro_batch_size=2)
    with pytest.raises(RecipeError, match=r"batch normalisation .* with train\.micro_batch_size"):
        fit._check_rows_apart(Tower(encoder, LinearHead(4, 3)), Augmentations(), section)
    fit._check_rows_apart(Tower(encoder, LinearHead(4, 3), [encoder]), Augmentations(), section)


def test_a_device_by_number_is_refused_to_several(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "join", lambda: SimpleNamespace(count=2))
    with pytest.raises(InputError, match=r"'cuda:1' by 2 processes .*use --device cuda"):
        engine.build_engine(toy.build_recipe(tmp_path, device="cuda:1"))


@pytest.mark.parametrize(
    ("kind", "count"), [(DistributedType.FSDP, 2), (DistributedType.NO, 1)], ids=["fsdp", "alone"]
)
def test_another_engine_than_was_asked_for_is_refused(monkeypatch, tmp_path, kind, count):
    monkeypatch.setattr(engine, "join", lambda: SimpleNamespace(count=2))
    found = SimpleNamespace(distributed_type=kind, num_processes=count)
    monkeypatch.setattr(engine, "Accelerator", lambda **_: found)
    with pytest.raises(InputError, match=f"accelerate is set up for {kind.value} by {count}; "):
        engine.build_engine(toy.build_recipe(tmp_path))
