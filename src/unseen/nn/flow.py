"""What methods with a conditional flow have in common: the likelihood, the mode of a class, the decay of the learning rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unseen.nn.coupling import ConditionalFlow
from unseen.scaling import ScaledView


def likelihood_loss(z: Tensor, log_determinant: Tensor) -> Tensor:
    """L_f = mean over rows of (½ ‖z‖² − log |det ∂z/∂x|) / d: −log p(x) per dimension under z ~ N(0, I), without its constant.

    Args:
        z: (B, d); log_determinant: (B,).
    """
    return z.square().mean() / 2 - log_determinant.mean() / z.shape[1]


def prototype_loss(prototypes: Tensor, means: Tensor) -> Tensor:
    """Mean over classes and dimensions of (x̃_c − μ_c)²; both (n, d)."""
    return (prototypes - means).square().mean()


def encode(flow: ConditionalFlow, x: Tensor, conditions: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """z and log-determinant. What a condition adds is computed once a class, or once a row where these are fewer.

    Args:
        x: (B, d); conditions: (K, G); place: (B,) which condition is whose.
    """
    by_row = len(x) < len(conditions)
    terms = flow.terms(conditions[place] if by_row else conditions)
    encoded: tuple[Tensor, Tensor] = flow(x, terms, None if by_row else place)
    return encoded


def class_means(view: ScaledView) -> Tensor:
    """(S, d) means of the real rows of each seen class; 0 for a class without rows."""
    sums = torch.zeros(len(view.embeddings), view.features.shape[1], dtype=view.features.dtype, device=view.device)
    sums.index_add_(0, view.labels, view.features)
    counts = torch.bincount(view.labels, minlength=len(view.embeddings)).clamp(min=1)
    return (sums / counts[:, None])[view.seen]


def decay(factor: float, epochs: int, step: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by: `factor` to the number of decays so far, one every `epochs` epochs.

    The released codes count an epoch after step 0 already, so the first decay comes an epoch early; so it does here.

    Args:
        step: iterations done so far.
    """
    passed = math.ceil(step / steps_per_epoch)
    multiplied: float = factor ** (passed // epochs)
    return multiplied
