"""The critic's closed forms against autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unseen.nn.critic import Critic, critic_gradients, update_critic


def critic_and_batch(rows: int = 7) -> tuple[Critic, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    critic = Critic(d=11, a=4, hidden=13).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    real, fake, c = (torch.randn(rows, width, dtype=torch.float64) for width in (11, 11, 4))
    return critic, real, fake, c, torch.rand(rows, 1, dtype=torch.float64)


def plain_penalty(critic: Critic, real: Tensor, fake: Tensor, c: Tensor, t: Tensor) -> Tensor:
    xi = (t * real + (1 - t) * fake).requires_grad_()
    (inner,) = torch.autograd.grad(critic(xi, c).sum(), xi, create_graph=True)
    return ((inner.norm(dim=1) - 1) ** 2).mean()


@pytest.mark.parametrize("rows", [1, 7])
def test_penalty_in_closed_form_equals_double_backward(rows: int) -> None:
    critic, real, fake, c, t = critic_and_batch(rows)
    plain = plain_penalty(critic, real, fake, c, t)
    expected = torch.autograd.grad(plain, list(critic.parameters()), allow_unused=True)
    with torch.no_grad():
        with_penalty, penalty, _ = critic_gradients(critic, real, fake, c, t, torch.tensor(1.0, dtype=torch.float64))
        without, _, _ = critic_gradients(critic, real, fake, c, t, torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(penalty, plain.detach(), rtol=1e-10, atol=0)
    for (name, parameter), gradient in zip(critic.named_parameters(), expected, strict=True):
        closed = with_penalty[name] - without[name]
        torch.testing.assert_close(
            closed, torch.zeros_like(parameter) if gradient is None else gradient, rtol=1e-10, atol=1e-10
        )


def test_critic_gradients_equal_autograd() -> None:
    critic, real, fake, c, t = critic_and_batch()
    weight = torch.tensor(3.7, dtype=torch.float64)
    wasserstein = critic(real, c).mean() - critic(fake, c).mean()
    loss = -wasserstein + weight * plain_penalty(critic, real, fake, c, t)
    expected = torch.autograd.grad(loss, list(critic.parameters()))
    with torch.no_grad():
        gradients, _, estimate = critic_gradients(critic, real, fake, c, t, weight)
    assert list(gradients) == [name for name, _ in critic.named_parameters()]
    for (name, _), gradient in zip(critic.named_parameters(), expected, strict=True):
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(estimate, wasserstein.detach(), rtol=1e-10, atol=0)


def test_an_update_steps_down_the_weighted_loss() -> None:
    critic, real, fake, c, t = critic_and_batch()
    gradients, penalty, estimate = critic_gradients(critic, real, fake, c, t, 2.0)
    before = {name: value.detach().clone() for name, value in critic.named_parameters()}
    update = update_critic(critic, torch.optim.SGD(critic.parameters(), lr=0.1), real, fake, c, t, 2.0, weight=3.0)
    for name, value in critic.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] - 0.3 * gradients[name].detach(), rtol=1e-12, atol=1e-14)
    assert update == (penalty, estimate)
