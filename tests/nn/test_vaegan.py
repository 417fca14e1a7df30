"""Losses of the VAE-GAN against their sums."""

from __future__ import annotations

import math

import pytest
import torch

from unseen.nn.vaegan import semantic_reconstruction, vae_loss


def test_semantic_reconstruction_is_the_self_weighted_form() -> None:
    torch.manual_seed(0)
    p = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    c = torch.randn(5, 6, dtype=torch.float64)
    delta = p - c
    share = delta**2 / (delta**2).sum(dim=1, keepdim=True).sqrt()
    expected = (share * delta.abs()).sum() / 5
    loss = semantic_reconstruction(p, c)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, plain = (torch.autograd.grad(value, p)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)  # the weights are differentiated too
    assert float(semantic_reconstruction(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))) == pytest.approx((27 + 64) / 5)


def test_a_perfect_prediction_has_no_loss_and_a_finite_gradient() -> None:
    p = torch.ones(2, 3, requires_grad=True)
    loss = semantic_reconstruction(p, torch.ones(2, 3))
    loss.backward()
    assert loss == 0
    assert torch.equal(p.grad, torch.zeros(2, 3))


def test_vae_loss_equals_its_sums() -> None:
    x_hat, x = [[0.2, 0.9], [0.5, 0.4]], [[0.0, 1.0], [0.3, 0.6]]
    mean, log_variance = [[0.5], [-1.0]], [[0.1], [-0.7]]
    kl = sum(-0.5 * (1 + v - m**2 - math.exp(v)) for (m,), (v,) in zip(mean, log_variance, strict=True))
    pairs = [(p, t) for ps, ts in zip(x_hat, x, strict=True) for p, t in zip(ps, ts, strict=True)]
    bernoulli = sum(-t * math.log(p) - (1 - t) * math.log(1 - p) for p, t in pairs)
    gaussian = sum((p - t) ** 2 for p, t in pairs) / (2 * 0.3**2)
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (x_hat, x, mean, log_variance)]
    assert float(vae_loss(*tensors, sigma=None)) == pytest.approx((bernoulli + kl) / 2, rel=1e-9)
    assert float(vae_loss(*tensors, sigma=0.3)) == pytest.approx((gaussian + kl) / 2, rel=1e-9)


def test_vae_loss_of_a_diverged_network_is_nan_and_no_error() -> None:
    x_hat = torch.tensor([[0.5, math.nan]], requires_grad=True)
    loss = vae_loss(x_hat, torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1), torch.zeros(1, 1), None)
    assert loss.isnan()
    loss.backward()  # type: ignore[no-untyped-call]


def test_vae_loss_survives_a_saturated_sigmoid() -> None:
    x_hat = torch.tensor([[0.0, 1.0, 1.0]], requires_grad=True)
    loss = vae_loss(x_hat, torch.tensor([[1.0, 0.0, 1.0]]), torch.zeros(1, 1), torch.zeros(1, 1), None)
    loss.backward()
    assert loss.isfinite()
    assert x_hat.grad.isfinite().all()
