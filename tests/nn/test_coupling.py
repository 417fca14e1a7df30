"""The coupling flow against autograd, its own inverse, a plain form with one first layer, and FrEIA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unseen.errors import DataError
from unseen.nn.coupling import ConditionalFlow, Coupling, Subnetwork, initialise

D, G, HIDDEN, CLASSES, ROWS = 7, 3, 8, 4, 9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def far_from_identity(d: int = D, permuted: bool = False, dtype: torch.dtype = torch.float64, **shape: int) -> ConditionalFlow:
    """A flow of three blocks with large weights, so that a wrong sign or half shows."""
    blocks, hidden = shape.get("blocks", 3), shape.get("hidden", HIDDEN)
    flow = ConditionalFlow(d, G, hidden, blocks, permutations=generator(5) if permuted else None)
    initialise(flow, generator(1), spread=0.5)
    return flow.to(dtype)


def drawn(*shape: int, seed: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


CASES = pytest.mark.parametrize(("d", "permuted"), [(7, False), (8, False), (7, True), (2, False)])


@CASES
def test_inverse_undoes_forward_in_both_directions(d: int, permuted: bool) -> None:
    """In single precision too, at the width of an encoder's features."""
    for dtype, bound, width in ((torch.float64, 1e-11, d), (torch.float32, 1e-4, 50 * d)):
        flow = ConditionalFlow(width, G, 64, 5, permutations=generator(5) if permuted else None)
        initialise(flow, generator(1), spread=0.2 if width == d else 0.03)
        flow = flow.to(dtype)
        terms, rows = flow.terms(drawn(CLASSES, G, dtype=dtype)), torch.arange(ROWS) % CLASSES
        x = drawn(ROWS, width, dtype=dtype)
        z, _ = flow(x, terms, rows)
        assert (z - x).abs().max() > 0.1, "it is no identity"
        assert (flow.inverse(z, terms, rows) - x).abs().max() < bound
        assert (flow(flow.inverse(x, terms, rows), terms, rows)[0] - x).abs().max() < bound


@CASES
def test_the_log_determinant_is_that_of_the_jacobian(d: int, permuted: bool) -> None:
    flow = far_from_identity(d, permuted)
    conditions = drawn(CLASSES, G)
    x = drawn(ROWS, d, seed=3)
    terms = flow.terms(conditions)
    rows = torch.arange(ROWS) % CLASSES
    _, log_determinant = flow(x, terms, rows)
    assert log_determinant.shape == (ROWS,)
    for row in range(ROWS):
        jacobian = torch.autograd.functional.jacobian(lambda one, k=row: flow(one[None], terms, rows[k : k + 1])[0][0], x[row])
        torch.testing.assert_close(log_determinant[row], torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-10)


def test_a_condition_for_each_class_is_a_condition_for_each_row() -> None:
    """Values and gradients: those of the conditions and of their weights too."""
    flow, conditions, x = far_from_identity(), drawn(CLASSES, G).requires_grad_(), drawn(ROWS, D, seed=3)
    rows = torch.tensor([3, 0, 0, 2, 1, 3, 3, 0, 2])
    found = []
    for terms, picked in ((flow.terms(conditions), rows), (flow.terms(conditions[rows]), None)):
        z, log_determinant = flow(x, terms, picked)
        back = flow.inverse(x, terms, picked)
        loss = z.square().sum() - log_determinant.sum() + back.cos().sum()
        found.append([z, log_determinant, back, *torch.autograd.grad(loss, [conditions, *flow.parameters()])])
    for once, for_each in zip(*found, strict=True):
        torch.testing.assert_close(once, for_each, rtol=0, atol=1e-10)


def plain(flow: ConditionalFlow, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The formulas, with one first layer for [u, g] and a condition for each row."""

    def subnetwork(network: Subnetwork, u: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.cat([network.feature.weight, network.condition.weight], dim=1)
        h = torch.cat([u, g], dim=1) @ first.T + network.condition.bias
        out = torch.where(h > 0, h, 0.2 * h) @ network.out.weight.T + network.out.bias
        half = out.shape[1] // 2
        return 0.636 * torch.atan(out[:, :half]), out[:, half:]

    total = torch.zeros(len(x), dtype=x.dtype)
    for number, block in enumerate(flow.blocks):
        assert isinstance(block, Coupling)
        if flow.permuted:
            x = x[:, flow.orders[number]]
        u1, u2 = x[:, : D // 2], x[:, D // 2 :]
        s, t = subnetwork(block.first, u2)
        v1, total = u1 * s.exp() + t, total + s.sum(dim=1)
        s, t = subnetwork(block.second, v1)
        x, total = torch.cat([v1, u2 * s.exp() + t], dim=1), total + s.sum(dim=1)
    return x, total


@pytest.mark.parametrize("permuted", [False, True])
def test_it_is_the_plain_form_in_value_and_gradient(permuted: bool) -> None:
    flow, g, x = far_from_identity(permuted=permuted), drawn(ROWS, G).requires_grad_(), drawn(ROWS, D, seed=3).requires_grad_()
    found = []
    for z, log_determinant in (flow(x, flow.terms(g)), plain(flow, x, g)):
        loss = 0.5 * z.square().sum() - log_determinant.sum()
        found.append([z, log_determinant, *torch.autograd.grad(loss, [x, g, *flow.parameters()])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert all(gradient.abs().max() > 0 for gradient in found[0])


def test_gradients_are_those_of_finite_differences() -> None:
    flow, conditions = far_from_identity(d=4, blocks=2, hidden=3), drawn(2, G).requires_grad_()
    x, rows = drawn(3, 4, seed=3).requires_grad_(), torch.tensor([1, 0, 1])
    assert torch.autograd.gradcheck(lambda x, c: flow(x, flow.terms(c), rows), (x, conditions))
    assert torch.autograd.gradcheck(lambda x, c: flow.inverse(x, flow.terms(c), rows), (x, conditions))


def test_rows_and_classes_do_not_touch_each_other() -> None:
    flow, terms, x = far_from_identity(), far_from_identity().terms(drawn(CLASSES, G)), drawn(ROWS, D, seed=3)
    rows = torch.arange(ROWS) % CLASSES
    z, _ = flow(x, terms, rows)
    for row in range(ROWS):
        torch.testing.assert_close(flow(x[row : row + 1], terms, rows[row : row + 1])[0][0], z[row], rtol=0, atol=1e-12)
    assert not torch.isclose(flow(x, terms, (rows + 1) % CLASSES)[0], z).all(dim=1).any(), "another condition, another z"


@pytest.mark.parametrize("clamp", [1.0, 2.5])
def test_the_clamp_bounds_what_a_block_may_stretch(clamp: float) -> None:
    flow = ConditionalFlow(D, G, HIDDEN, 2, clamp)
    initialise(flow, generator(), spread=100.0)
    _, log_determinant = flow(drawn(50, D, dtype=torch.float32), flow.terms(drawn(50, G, dtype=torch.float32)))
    assert log_determinant.abs().max() <= clamp * 2 * D
    assert log_determinant.abs().max() > clamp * D
    near_0 = Coupling(D, G, HIDDEN, clamp)._soft(torch.tensor([1e-4], dtype=torch.float64))
    assert float(near_0) == pytest.approx(0.636e-4, rel=1e-6)


def test_it_begins_near_the_identity() -> None:
    flow = ConditionalFlow(64, 32, 128, 3)
    initialise(flow, generator())
    for parameter in flow.parameters():
        assert float(parameter.detach().std()) == pytest.approx(0.01, rel=0.35)
        assert parameter.abs().max() > 0, "biases too"
    x = drawn(5, 64, dtype=torch.float32)
    z, log_determinant = flow(x, flow.terms(drawn(5, 32, dtype=torch.float32)))
    assert (z - x).abs().max() < 0.3
    assert log_determinant.abs().max() < 64 * 3 * 0.05


def test_permutations_are_fixed_and_travel_with_the_weights() -> None:
    flow, other = far_from_identity(permuted=True), ConditionalFlow(D, G, HIDDEN, 3, permutations=generator(6))
    assert not torch.equal(flow.orders, other.orders)
    assert torch.equal(flow.orders[0], torch.arange(D))
    assert torch.equal(flow.orders.sort(dim=1).values, torch.arange(D).expand(3, D))
    other.load_state_dict(flow.state_dict())
    x, conditions = drawn(ROWS, D), drawn(ROWS, G)
    other = other.double()
    assert torch.equal(other(x, other.terms(conditions))[0], flow(x, flow.terms(conditions))[0])


# --------------------------------------------------------------------------------------------------------- golden numbers


def waves(start: float, *shape: int) -> Tensor:
    """Numbers that any program can make: sin(1.7k + start), k counted through the rows."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + start).reshape(shape)


def test_one_block_is_freias_glow_coupling() -> None:
    """Numbers of FrEIA 0.2 (MIT licence, from PyPI), in float64:

    block = GLOWCouplingBlock([(5,)], dims_c=[(3,)], clamp=1.0, subnet_constructor=Linear(·, 4) → LeakyReLU(0.2) → Linear(4, ·))

    Its subnet2 is our `first`, with start 0.1, its subnet1 our `second`, with start 0.2. Of each: the first layer's weight is
    cat([waves(start, 4, known), waves(start + 1, 4, 3)], 1), its bias waves(start + 2, 4); the second layer's weight is
    waves(start + 3, …), its bias waves(start + 4, …). Then (z,), log_jac = block([waves(5, 2, 5)], [waves(6, 2, 3)], jac=True).
    """
    flow = ConditionalFlow(5, 3, 4, 1).double()
    block = flow.blocks[0]
    assert isinstance(block, Coupling)
    with torch.no_grad():
        for start, network in ((0.1, block.first), (0.2, block.second)):
            for offset, parameter in (
                (0, network.feature.weight),
                (1, network.condition.weight),
                (2, network.condition.bias),
                (3, network.out.weight),
                (4, network.out.bias),
            ):
                parameter.copy_(waves(start + offset, *parameter.shape))
    x = waves(5.0, 2, 5)
    terms = flow.terms(waves(6.0, 2, 3))
    z, log_determinant = flow(x, terms)
    expected = [
        [-0.7704590169547179, -0.5771043787117658, 0.10332736203977755, -2.016376227430907, -1.207429630145227],
        [5.055982385534005, 3.787601019739701, 1.516577099678646, -0.006298580626467931, 2.0334308028885144],
    ]
    torch.testing.assert_close(z, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    golden = torch.tensor([-0.04061249881080947, 3.427333241654437], dtype=torch.float64)
    torch.testing.assert_close(log_determinant, golden, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inverse(z, terms), x, rtol=0, atol=1e-12)


def test_a_single_dimension_cannot_be_coupled() -> None:
    with pytest.raises(DataError, match="features of length 1"):
        ConditionalFlow(1, condition=3, hidden=4, blocks=1)
