"""What methods are built with: the optimisers' state."""

from __future__ import annotations

import torch
from torch import Tensor

from unseen.methods.base import load_optimiser_state, optimiser_state


def test_optimisers_of_many_parameters_survive_two_round_trips() -> None:
    """Files list entries by name, "10" before "2"; the numbers, not the places, say which parameter is meant."""

    def optimiser() -> tuple[list[Tensor], torch.optim.Optimizer]:
        parameters = [torch.full((2,), float(k)) for k in range(13)]
        return parameters, torch.optim.Adam(parameters, 0.1)

    parameters, first = optimiser()
    for k, parameter in enumerate(parameters):
        parameter.grad = torch.full((2,), k + 1.0)
    first.step()
    state = dict(optimiser_state({"net": first}))
    for _ in range(2):
        _, other = optimiser()
        load_optimiser_state({"net": other}, dict(sorted(state.items())))
        again = dict(optimiser_state({"net": other}))
        assert state.keys() == again.keys()
        assert [name for name in state if not torch.equal(state[name], again[name])] == []
        state = again
