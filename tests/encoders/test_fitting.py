from __future__ import annotations

import pytest
from torch import nn

from modalbind.encoders.fitting import find_weights, split_by_depth
from modalbind.errors import InputError


def test_weights_by_path(tmp_path):
    (tmp_path / "w.pt").touch()
    assert find_weights(str(tmp_path / "w.pt")) == tmp_path / "w.pt"
    with pytest.raises(InputError, match="no such file"):
        find_weights(str(tmp_path / "absent.pt"))


def test_weights_by_hub_name(tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    def fake(repo: str, name: str) -> str:
        calls.append((repo, name))
        if name == "absent.pt":
            raise OSError("offline\nsecond line")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert find_weights("hf://owner/repo/sub/w.pt") == tmp_path / "sub/w.pt"
    assert calls == [("owner/repo", "sub/w.pt")]
    with pytest.raises(InputError, match="offline; check") as caught:
        find_weights("hf://owner/repo/absent.pt")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="OWNER/REPO/FILE"):
        find_weights("hf://owner/repo")


def test_split_by_depth():
    model = nn.Module()
    model.stem = nn.Linear(2, 2)
    model.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.norm = nn.LayerNorm(2)
    groups = split_by_depth(model)
    assert groups == [[model.stem], [model.layers[0]], [model.layers[1], model.norm]]


def test_a_network_without_a_list_of_layers_is_refused():
    with pytest.raises(InputError, match="name it one of blocks, layer"):
        split_by_depth(nn.Linear(2, 2))
