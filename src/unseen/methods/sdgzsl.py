"""SDGZSL: a conditional VAE whose features are split into halves, one of which agrees with the semantics.

Reference: Z. Chen, Y. Luo, R. Qiu, S. Wang, Z. Huang, J. Li, Z. Zhang, "Semantics Disentangling for Generalized Zero-Shot
Learning", ICCV 2021. It is SDDN's file without self-distillation and predictor: relations compare h_s with the embedding
itself, and the final classifier sees h_s alone. What differs from the paper is told in docs/methods/sdgzsl.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unseen.methods import sddn
from unseen.methods.base import Range
from unseen.methods.sddn import Hyperparameters
from unseen.recipe import Recipe


def without_distillation(settings: Hyperparameters) -> Hyperparameters:
    """What SDGZSL has of SDDN. The embeddings' autoencoder is left, but with these settings nothing of it reaches a feature."""
    return replace(settings, lambda_sd=0.0, lambda_cg=0.0, lambda_m=0.0, lambda_cross=0.0, relate_to="embedding", fusion="F0")


PRESETS: Mapping[str, tuple[Hyperparameters, Recipe]] = {
    # SDDN's presets are SDGZSL's own settings, and parts that SDGZSL has not. Its classifier takes as many rows at a time as
    # are synthesised of a class.
    name: (without_distillation(hyperparameters), replace(recipe, classifier_batch=0))
    for name, (hyperparameters, recipe) in sddn.PRESETS.items()
}

ABLATIONS: Mapping[str, Mapping[str, float]] = {
    "no relation matching": {"lambda_rel": 0.0},
    "no independence": {"lambda_tc": 0.0},
}
"""Row of an ablation table → what it changes."""

_OF_DISTILLATION = ("lambda_sd", "alpha", "beta", "lambda_cg", "warm_up", "lambda_m")

SEARCH: Mapping[str, Range] = {name: tried for name, tried in sddn.SEARCH.items() if name not in _OF_DISTILLATION}
"""Hyper-parameter → what `unseen tune` tries."""


def default(classes: int, d: int, a: int) -> tuple[Hyperparameters, Recipe]:
    """As SDDN's, for data without a preset.

    Args:
        classes: seen classes; d: length of a feature; a: of an embedding.
    """
    hyperparameters, recipe = sddn.default(classes, d, a)
    return without_distillation(hyperparameters), recipe
