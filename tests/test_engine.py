"""What the engine refuses before anything is read."""

from __future__ import annotations

import pytest
import torch
import toy

from modalbind.engine import build_engine
from modalbind.errors import InputError


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"device": "cuda:7"}, "device 'cuda:7' asked for; this machine has cpu"),
        ({"device": "tpu"}, "device 'tpu' asked for"),
        ({"train": {"trackers": ["nonsense"]}}, "accelerate knows .*tensorboard"),
        ({"train": {"trackers": ["clearml"]}}, "not installed; try: pip install clearml"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, changes, found):
    with pytest.raises(InputError, match=found):
        build_engine(toy.build_recipe(tmp_path, **changes), tmp_path)


def test_threads_and_device_are_those_of_the_recipe(tmp_path):
    before = torch.get_num_threads()
    try:
        engine = build_engine(toy.build_recipe(tmp_path, train={"threads": 1}))
        assert torch.get_num_threads() == 1
        assert str(engine.device) == "cpu"
    finally:
        torch.set_num_threads(before)
