"""Selection and early stop on the validation split; the test split is never looked at here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from modalbind.checkpoint import Checkpoints
from modalbind.errors import CorruptFileError, DataError
from modalbind.evaluation.embed import embed_samples
from modalbind.evaluation.pools import Pool
from modalbind.evaluation.retrieval import compute_retrieval
from modalbind.inputs import RunInputs
from modalbind.processes import join
from modalbind.recipe.schema import Recipe
from modalbind.rundir import RunDirectory
from modalbind.training import Aligner
from modalbind.types import StepResult

METRIC = "map_at_10"


class Selection:
    """Scores the tower every few epochs and remembers the best one.

    Invariant: the history is a function of the steps taken, so a resumed run chooses the same
    weights as one that was never stopped.
    """

    def __init__(self, recipe: Recipe, inputs: RunInputs, directory: RunDirectory) -> None:
        """Select nothing unless the recipe asks for it."""
        self._recipe, self._inputs, self._directory = recipe, inputs, directory
        self._best = Checkpoints(directory.path / "checkpoints" / "best", keep=1)
        self.history: list[tuple[int, float]] = []

    @property
    def should_stop(self) -> bool:
        """Whether `patience` scores have passed without a gain."""
        patience = self._recipe.train.patience
        if not patience or not self.history:
            return False
        return len(self.history) - 1 - self._best_place() >= patience

    def end_epoch(self, tower: nn.Module, aligner: Aligner, result: StepResult) -> None:
        """Score the tower if it is due, and keep it if it is the best so far."""
        every = self._recipe.train.select_every
        if not every or (result.epoch + 1) % every:
            return
        processes = join()
        score = processes.share(lambda: self._score(tower, aligner.accelerator.device))
        self.history.append((result.step, score))
        if not processes.is_first:
            return
        self._directory.log_score(result.step, f"val_{METRIC}", self.history[-1][1])
        if self._best_place() == len(self.history) - 1:
            self._best.save(result.step, aligner.state_tensors(), {"step": result.step})

    def _score(self, tower: nn.Module, device: torch.device) -> float:
        inputs, section = self._inputs, self._recipe.evaluation
        assert inputs.val is not None
        embeddings = embed_samples(
            tower,
            inputs.modality,
            inputs.load_all(inputs.data.val),
            device=device,
            batch_size=self._recipe.train.batch_size,
            use_windows=section.window,
        )
        labels = torch.tensor(inputs.val.sample_labels)
        sides = [pool for pool in inputs.embed_pools(inputs.val) if self._is_trained(pool)]
        if not sides:
            raise DataError(
                "a score on the validation split asked for; its samples have nothing in a "
                "training language; check data.train_languages"
            )
        scores = [
            compute_retrieval(
                embeddings, pool.embeddings, labels, pool.labels, bootstrap=0, tile=section.tile
            ).metrics[METRIC]
            for pool in sides
        ]
        return sum(score.value for score in scores) / len(scores)

    def _is_trained(self, pool: Pool) -> bool:
        return pool.modality in self._recipe.anchor.sides and (
            pool.modality != "text" or pool.language in self._recipe.data.train_languages
        )

    def _best_place(self) -> int:
        scores = [score for _, score in self.history]
        return scores.index(max(scores))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"history": self.history}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.history = [(int(step), float(score)) for step, score in state["history"]]

    def restore_best(self, aligner: Aligner) -> None:
        """Put the best weights back at the end; without selection the last ones stay.

        Raises:
            CorruptFileError: If they were damaged.
        """
        if not self.history:
            return
        found = self._best.load_latest()
        best_step = self.history[self._best_place()][0]
        if found is None or found[0] != best_step:
            raise CorruptFileError(
                f"the best weights (step {best_step}) of {self._directory.path} asked for; they "
                "are damaged; run again with --force"
            )
        aligner.load_state_tensors(found[1])
