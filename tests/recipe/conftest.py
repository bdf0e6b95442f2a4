import pytest
from pydantic import Field, model_validator

from modalbind.builtin import modalbind_anchors, modalbind_datasets, modalbind_objectives
from modalbind.interfaces import (
    API_VERSION,
    AugmentationSpec,
    EncoderSpec,
    ModalitySpec,
    Options,
)
from modalbind.plugin_manager import LoadedPlugin, Plugins


class SmellOptions(Options):
    sniffs: int = Field(default=3, ge=1)


class NoseOptions(Options):
    width: int = 8
    depth: int = Field(default=2, ge=1)


class GustOptions(Options):
    strength: float = 1.0
    seconds: float = 1.0
    preset: str | None = None

    @model_validator(mode="after")
    def _check_preset(self):
        if self.preset and "seconds" in self.model_fields_set:
            raise ValueError("a preset has its own seconds")
        return self


@pytest.fixture(autouse=True)
def _own_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plugins():
    """The core, and a modality that needs no package."""
    shared = {"summary": "x", "api_version": API_VERSION, "build": "smell:build"}
    smell = ModalitySpec(
        name="smell",
        unit="none",
        suffixes=(".nose",),
        options=SmellOptions,
        default_recipe="smell/default",
        quickstart_recipe="smell/quickstart",
        **shared,
    )
    nose = EncoderSpec(name="nose", modality="smell", options=NoseOptions, **shared)
    gust = AugmentationSpec(
        name="gust", modality="smell", stage="sample", options=GustOptions, **shared
    )
    core = {
        "anchor": tuple(modalbind_anchors()),
        "dataset": tuple(modalbind_datasets()),
        "objective": tuple(modalbind_objectives()),
    }
    own = {"modality": (smell,), "encoder": (nose,), "augmentation": (gust,)}
    return Plugins(
        (
            LoadedPlugin("modalbind", "modalbind", "1", "modalbind.builtin", core),
            LoadedPlugin("smell", "modalbind-smell", "1", "no_such_package", own),
        )
    )


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe file and returns its name."""

    def write_file(text, name="r.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file
