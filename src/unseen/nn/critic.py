"""The conditional Wasserstein critic and its whole gradient, penalty included, in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.nn.learning import SLOPE, TINY


class Critic(nn.Module):
    """D: [x, c] → score; d+a → H → 1. The first layer's weights for x and for c are stored apart."""

    def __init__(self, d: int, a: int, hidden: int) -> None:
        super().__init__()
        self.visual = nn.Linear(d, hidden, bias=False)
        self.semantic = nn.Linear(a, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        out: Tensor = self.score(F.leaky_relu(self.visual(x) + self.semantic(c), SLOPE))
        return out


@torch.no_grad()
def update_critic(
    critic: Critic,
    optimiser: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    c: Tensor,
    t: Tensor,
    penalty_weight: Tensor | float,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """One optimiser step on weight · (mean D(x̂) − mean D(x) + λP); see `critic_gradients`.

    Returns P and the Wasserstein estimate.
    """
    gradients, penalty, wasserstein = critic_gradients(critic, real, fake, c, t, penalty_weight)
    for name, parameter in critic.named_parameters():
        parameter.grad = weight * gradients[name]
    optimiser.step()
    return penalty, wasserstein


def critic_gradients(
    critic: Critic, real: Tensor, fake: Tensor, c: Tensor, t: Tensor, penalty_weight: Tensor | float
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradient of mean D(x̂) − mean D(x) + λP, in closed form, with P = mean (‖∇_ξ D(ξ, c)‖ − 1)², ξ = t·x + (1−t)·x̂.

    D has one hidden layer, so with s its slopes (1 or 0.2) the inner gradient is (s ∘ w)V, V the visual weights, and s is
    constant almost everywhere: no second backward pass is needed. The pre-activation of ξ is the same mixture of those of
    x and x̂, so ξ costs no forward pass either.

    Args:
        real, fake: (B, d); c: (B, a); t: (B, 1) in [0, 1]; penalty_weight: λ.

    Returns:
        Parameter name → gradient; P; mean D(x) − mean D(x̂), the Wasserstein estimate.
    """
    visual, w = critic.visual.weight, critic.score.weight[0]
    rows = len(real)
    condition = critic.semantic(c)
    pre_real, pre_fake = real @ visual.T + condition, fake @ visual.T + condition
    hidden_real, hidden_fake = F.leaky_relu(pre_real, SLOPE), F.leaky_relu(pre_fake, SLOPE)
    toward_fake = (_slopes(pre_fake) * w) / rows
    toward_real = (_slopes(pre_real) * w) / rows

    slopes = _slopes(t * pre_real + (1 - t) * pre_fake)
    through = slopes * w
    inner = through @ visual
    norm = inner.norm(dim=1, keepdim=True).clamp_min(TINY)
    penalty = (norm - 1).square().mean()
    pull = penalty_weight * 2 * (norm - 1) / (norm * rows) * inner

    difference = hidden_fake.mean(dim=0) - hidden_real.mean(dim=0)
    on_condition = toward_fake - toward_real
    gradients = {
        "visual.weight": torch.cat([toward_fake, -toward_real, through]).T @ torch.cat([fake, real, pull]),
        "semantic.weight": on_condition.T @ c,
        "semantic.bias": on_condition.sum(dim=0),
        "score.weight": (difference + (slopes * (pull @ visual.T)).sum(dim=0))[None],
        "score.bias": torch.zeros_like(critic.score.bias),  # it cancels between real and fake
    }
    return gradients, penalty, -(difference @ w)


def _slopes(pre_activation: Tensor) -> Tensor:
    return torch.where(pre_activation > 0, torch.ones_like(pre_activation), SLOPE)
