"""The conditional VAE-GAN of the lineage: encoder, generator and their losses. The critic is in `unseen.nn.critic`.

Reference: Y. Xian, S. Sharma, B. Schiele, Z. Akata, "f-VAEGAN-D2", CVPR 2019. The self-weighted reconstruction follows
the behaviour of the released code of TF-VAEGAN (docs/methods/tfvaegan.md).

Symbols: d length of a feature x, a of a class embedding c, H hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.nn.learning import SLOPE, TINY


class Encoder(nn.Module):
    """E: [x, c] → mean and log-variance of z; d+a → H → 2·latent → latent, latent."""

    def __init__(self, d: int, a: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(d + a, hidden)
        self.second = nn.Linear(hidden, 2 * latent)
        self.mean = nn.Linear(2 * latent, latent)
        self.log_variance = nn.Linear(2 * latent, latent)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = F.leaky_relu(self.first(torch.cat([x, c], dim=1)), SLOPE)
        h = F.leaky_relu(self.second(h), SLOPE)
        return self.mean(h), self.log_variance(h)


class Generator(nn.Module):
    """G: [z, c] → x̂; latent+a → H → d. Feedback f (B, H) joins the hidden layer, after its activation."""

    def __init__(self, d: int, a: int, latent: int, hidden: int, unit_interval: bool) -> None:
        super().__init__()
        self.first = nn.Linear(latent + a, hidden)
        self.second = nn.Linear(hidden, d)
        self.unit_interval = unit_interval

    def forward(self, z: Tensor, c: Tensor, feedback: Tensor | None = None) -> Tensor:
        h = F.leaky_relu(self.first(torch.cat([z, c], dim=1)), SLOPE)
        out: Tensor = self.second(h if feedback is None else h + feedback)
        return torch.sigmoid(out) if self.unit_interval else out


def vae_loss(x_hat: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, sigma: float | None) -> Tensor:
    """Reconstruction + KL(E(x, c) ‖ N(0, I)), each summed over dimensions and averaged over rows.

    Args:
        sigma: None for Σ BCE(x̂, x), where features lie in [0, 1]; else ½ ‖x̂ − x‖² / σ².
    """
    if sigma is None:
        p = (x_hat + TINY).clamp(max=1)
        # Of a network that has diverged p is NaN, which torch answers by an error, or on a GPU by giving up the device. The
        # last term makes the loss NaN again; else it is 0.
        reconstruction = F.binary_cross_entropy(p.nan_to_num(0.5), x, reduction="sum") + 0 * p.sum()
    else:
        reconstruction = (x_hat - x).square().sum() / (2 * sigma**2)
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return (reconstruction + kl) / len(x)


def semantic_reconstruction(predicted: Tensor, c: Tensor) -> Tensor:
    """R(p, c) = mean over rows of Σⱼ |δⱼ|³ / ‖δ‖₂ with δ = p − c.

    The paper speaks of an l1 cycle loss; the released code weights each |δⱼ| by its own share of the row, which is this.
    """
    delta = predicted - c
    loss: Tensor = (delta.abs().pow(3).sum(dim=1) / delta.norm(dim=1).clamp_min(TINY)).mean()
    return loss
