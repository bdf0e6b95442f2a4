"""Measure what emerged: pure functions of embeddings and labels, blind to modalities and files."""

from modalbind.evaluation.affine import AffineFit, compute_spectrum, fit_affine, ridge_gcv
from modalbind.evaluation.bootstrap import MetricScore, PairedDifference, paired_difference
from modalbind.evaluation.controls import fit_trivial_control
from modalbind.evaluation.gap import GapScore, compute_gap
from modalbind.evaluation.retrieval import METRICS, RetrievalScore, compute_retrieval
from modalbind.evaluation.zero_shot import (
    ZeroShotScore,
    build_prompts,
    compute_class_vectors,
    compute_zero_shot,
    load_templates,
)

__all__ = [
    "METRICS",
    "AffineFit",
    "GapScore",
    "MetricScore",
    "PairedDifference",
    "RetrievalScore",
    "ZeroShotScore",
    "build_prompts",
    "compute_class_vectors",
    "compute_gap",
    "compute_retrieval",
    "compute_spectrum",
    "compute_zero_shot",
    "fit_affine",
    "fit_trivial_control",
    "load_templates",
    "paired_difference",
    "ridge_gcv",
]
