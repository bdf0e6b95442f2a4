"""The training loop and its optimizer."""

from modalbind.training.aligner import Aligner

__all__ = ["Aligner"]
