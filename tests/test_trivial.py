"""The trivial-feature control sees the columns that it is given, those with a meaning too."""

from __future__ import annotations

import csv
from pathlib import Path

import toy
from test_inputs import open_toy, rewrite

from modalbind.trivial import predict_trivial


def test_a_known_column_tells_what_it_says(toy_world: Path) -> None:
    """`fold` is the label here, so the control finds each label's text from it alone."""
    with (toy_world / "pairs.csv").open() as file:
        kinds = {row["toy"]: row["kind"] for row in csv.DictReader(file)}

    rewrite(toy_world / "pairs.csv", lambda row: {**row, "fold": row["kind"]})
    right = {}
    for columns in ((), ("fold",)):
        evaluation = {"control_columns": columns}
        recipe = toy.build_recipe(toy_world, evaluation=evaluation)
        found = open_toy(toy_world, evaluation=evaluation)
        predicted, used = predict_trivial(found, recipe)
        assert used == ("steps", *columns)
        texts = found.banks["text"].pick([(f"a {label}", "en") for label in toy.LABELS])
        chosen = [toy.LABELS[place] for place in (predicted @ texts.T).argmax(dim=1).tolist()]
        expected = [kinds[sample.key] for sample in found.data.test]
        right[columns] = sum(a == b for a, b in zip(chosen, expected, strict=True))
    assert right[("fold",)] == 12 > right[()]
