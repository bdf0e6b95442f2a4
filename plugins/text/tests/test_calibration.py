"""Calibration as an option of the anchor and of a test, through whole runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import modalbind
from modalbind import pipeline
from modalbind.cli import main
from modalbind.data.options import ManifestOptions
from modalbind.errors import AnchorError, InputError
from modalbind.recipe.load import read_recipe
from modalbind.recipe.schema import CalibrationSection
from modalbind.types import AnchorItem


def align(tables, out, **changes):
    return pipeline.align(read_recipe(tables.recipe(**changes)), out=out)


def recall(report, target, language):
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language, row.from_anchor, row.reference)
        == ("text", target, language, False, False)
    ]
    return row.metrics.recall_at_10.value


def test_a_calibrated_anchor_is_another_space_that_the_run_keeps(tables, tmp_path):
    plain = align(tables, tmp_path / "plain")
    calibration = {"data": [str(tables.pairs)]}
    anchor = {"spec": tables.anchor, "calibration": calibration}
    made = align(tables, tmp_path / "run", anchor=anchor)
    assert made.report.anchor.fingerprint != plain.report.anchor.fingerprint
    assert made.report.anchor.is_unmoved and made.report.anchor.space == "anchor, calibrated"
    tables.pairs.rename(tmp_path / "gone.csv")  # a finished run needs the named data no more
    space = modalbind.load(made.path)
    items = [AnchorItem(f"pictures/{n}.png", bytes(32), lambda: None) for n in range(60)]
    found = space.anchor.embed("image", items)
    raw = torch.tensor(np.load(tables.folder / "anchor.npz")["image_vectors"])
    raw = torch.nn.functional.normalize(raw, dim=1)
    expected = torch.nn.functional.normalize(raw - raw.mean(dim=0), dim=1)
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(InputError, match="align both to the same anchor"):
        modalbind.load([made.path, plain.path])


def test_a_run_that_is_replaced_keeps_no_calibration_of_the_old_one(tables, tmp_path):
    anchor = {"spec": tables.anchor, "calibration": {"data": [str(tables.pairs)]}}
    made = align(tables, tmp_path / "run", anchor=anchor)
    again = pipeline.align(read_recipe(tables.recipe()), out=made.path, force=True)
    assert not (again.path / "calibration.safetensors").exists()
    assert again.report.anchor.space == "anchor"


def test_a_run_goes_on_with_the_calibration_that_it_was_started_with(tables, tmp_path):
    anchor = {"spec": tables.anchor, "calibration": {"data": [str(tables.pairs)]}}
    made = align(tables, tmp_path / "run", anchor=anchor)
    for name in ("tower.json", "tower.safetensors", "report.json", "report.html"):
        (made.path / name).unlink()
    tables.pairs.write_text(tables.pairs.read_text() + "en word 1,en,pictures/1.png,c1,train\n")
    recipe = read_recipe(tables.recipe(anchor=anchor))
    with pytest.raises(InputError, match="has changed since it was started"):
        pipeline.align(recipe, out=made.path, resume=True)


def test_a_damaged_calibration_is_noticed(tables, tmp_path):
    anchor = {"spec": tables.anchor, "calibration": {"data": [str(tables.pairs)]}}
    made = align(tables, tmp_path / "run", anchor=anchor)
    path = made.path / "calibration.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(modalbind.errors.CorruptFileError):
        modalbind.load(made.path).embed("image", ["pictures/1.png"])


def test_a_modality_that_the_data_lacks_is_named(tables, tmp_path):
    (tmp_path / "words.txt").write_text("en word 1\nen word 2\n")
    anchor = {"spec": tables.anchor, "calibration": {"data": [str(tmp_path / "words.txt")]}}
    with pytest.raises(AnchorError, match="asked to calibrate image"):
        align(tables, tmp_path / "run", anchor=anchor)
    assert not (tmp_path / "run").exists(), "refused before anything was made"


def test_taking_a_languages_own_mean_away_helps_a_language_that_is_shifted(tables, tmp_path):
    """German sentences are moved as a whole: English means cannot know it, German ones do."""
    path = tables.folder / "encoder.npz"
    table = dict(np.load(path))
    is_german = table["text_language"] == "de"
    # Along the line between two things, so that the shift tells everything to be one of them.
    english = table["text_vectors"][table["text_language"] == "en"]
    table["text_vectors"][is_german] += 3 * (english[41] - english[42])
    np.savez(path, **table)
    run = align(tables, tmp_path / "run").path
    plain = pipeline.evaluate(run)

    def calibrated(by_language: bool):
        section = CalibrationSection(data=(str(tables.pairs),), by_language=by_language)
        return pipeline.evaluate(run, calibration=section)

    with_own = calibrated(by_language=True)
    assert recall(with_own, "image", "de") > recall(plain, "image", "de") + 0.1
    assert recall(with_own, "image", "de") > recall(calibrated(False), "image", "de")
    assert any("with unlabelled text of de, en, fr" in note for note in with_own.notes)
    assert not any("calibrated" in note for note in modalbind.Run(run).report.notes), (
        "kept as it was"
    )


def test_the_command_line_takes_a_calibration(tables, tmp_path, capsys):
    run = align(tables, tmp_path / "run").path
    assert main(["evaluate", str(run), "--calibrate", str(tables.pairs), "--by-language"]) == 0
    assert "calibrated after training (mean)" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", str(run), "--by-language"]) == 2
    assert main(["evaluate", str(run), "--calibrate", "x.csv", "--controls"]) == 2
    assert main(["evaluate", str(run), "--calibrate", str(tmp_path / "nowhere.csv")]) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("modalbind: error: ")]
    assert len(errors) == 3 and "Traceback" not in "".join(lines)


def test_options_of_a_manifest_can_name_its_split():
    assert ManifestOptions(path="x", split="test").split == "test"
