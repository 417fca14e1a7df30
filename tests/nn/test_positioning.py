"""Conditions of a flow against their formula, one class and one anchor at a time."""

from __future__ import annotations

import math

import pytest
import torch

from unseen.nn.positioning import RelativePositioning, choose_anchors


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("classes", [1, 2, 5, 6])
def test_anchors_are_the_most_isolated_most_central_and_median_class(classes: int) -> None:
    embeddings = torch.randn(classes, 7, generator=generator(), dtype=torch.float64) * torch.arange(1, classes + 1)[:, None]
    totals = []
    for one in embeddings.tolist():
        total = 0.0
        for other in embeddings.tolist():
            dot = sum(p * q for p, q in zip(one, other, strict=True))
            total += dot / math.sqrt(sum(p * p for p in one)) / math.sqrt(sum(q * q for q in other))
        totals.append(total)
    median = sorted(totals)[classes // 2]
    expected = [totals.index(min(totals)), totals.index(max(totals)), totals.index(median)]
    assert torch.equal(choose_anchors(embeddings), embeddings[expected])


def test_anchors_do_not_depend_on_the_order_of_classes() -> None:
    embeddings = torch.randn(9, 4, generator=generator())
    assert torch.equal(choose_anchors(embeddings), choose_anchors(embeddings.flip(0)))


def test_relative_positioning_sums_one_layer_for_each_anchor() -> None:
    anchors, c = torch.randn(3, 5, generator=generator()).double(), torch.randn(4, 5, generator=generator(1)).double()
    mapping = RelativePositioning(anchors, 6, generator()).double()
    made = mapping(c).detach()
    weight, bias = mapping.weight.detach(), mapping.bias.detach()
    assert made.shape == (4, 6)
    for i in range(4):
        for j in range(6):
            expected = 0.0
            for m in range(3):
                inner = sum(float(weight[m, k, j]) * float(c[i, k] - anchors[m, k]) for k in range(5))
                expected += max(0.0, inner + float(bias[m, 0, j]))
            assert float(made[i, j]) == pytest.approx(expected, rel=1e-12)


def test_anchors_are_kept_with_the_weights_and_are_a_copy() -> None:
    anchors = torch.ones(3, 2)
    mapping = RelativePositioning(anchors, 4, generator())
    anchors.zero_()
    assert torch.equal(mapping.state_dict()["anchors"], torch.ones(3, 2))
    assert [name for name, _ in mapping.named_parameters()] == ["weight", "bias"]


def test_weights_start_as_in_a_linear_layer_and_follow_the_generator() -> None:
    def build(seed: int) -> RelativePositioning:
        return RelativePositioning(torch.zeros(3, 16), 500, generator(seed))

    for one, same, other in zip(*(build(seed).parameters() for seed in (1, 1, 2)), strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert one.abs().max() <= 0.25
        assert float(one.detach().std()) == pytest.approx(0.25 / 3**0.5, rel=0.1)
