"""SDGZSL: that what SDDN's file leaves of it is SDGZSL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods import METHODS, sddn
from unseen.methods.base import Clock
from unseen.methods.sddn import SDDN
from unseen.methods.sdgzsl import ABLATIONS, PRESETS, default
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]
EPOCH = 2


PUBLISHED = {"relation_loss": "squares", "independence": "judges"}
"""Which data without a preset do not get, as SDDN's page tells."""


def narrow(**changes: object) -> sddn.Hyperparameters:
    return replace(default(12, 24, 8)[0], **{"hidden": 16, "half": 6, "batch_size": 8, **PUBLISHED, **changes})  # type: ignore[arg-type]


def after_training(view: ScaledView, settings: sddn.Hyperparameters, steps: int = 8) -> dict[str, Tensor]:
    method = SDDN(view, settings, seed=1)
    generator = torch.Generator().manual_seed(3)
    for step in range(steps):
        rows = torch.randperm(len(view.labels), generator=generator)[:8]
        method.step(lambda rows=rows: (view.features[rows], view.labels[rows]), Clock(step, EPOCH))  # type: ignore[misc]
    return {name: value.clone() for name, value in method.state().items() if not name.startswith(("stream", "optimiser"))}


def test_presets_are_those_that_sddn_took_over_from_it() -> None:
    dropped = {"lambda_sd", "lambda_cg", "lambda_m", "relate_to", "fusion"}
    assert PRESETS.keys() == sddn.PRESETS.keys()
    for name, (settings, recipe) in PRESETS.items():
        theirs, their_recipe = sddn.PRESETS[name]
        assert recipe == replace(their_recipe, classifier_batch=0)  # its own: as many as synthetic rows of a class
        assert vars(settings).items() >= PUBLISHED.items()
        assert {f.name for f in fields(settings) if getattr(settings, f.name) != getattr(theirs, f.name)} == dropped


def test_no_part_of_sddn_alone_is_built(small_world: World) -> None:
    view = small_world()
    method = SDDN(view, narrow(), seed=1)
    parts = {name for name, _ in method.named_children()}
    assert parts == {
        "encoder", "generator",  # the conditional VAE
        "visual_encoder", "visual_decoder", "relation", "visual_judge",
        "semantic_encoder", "semantic_decoder", "semantic_judge",  # of SDDN, and idle: see below
    }  # fmt: skip
    assert not method.uses_unseen_embeddings


def test_nothing_of_the_embeddings_autoencoder_reaches_a_feature(small_world: World) -> None:
    """Another noise makes another autoencoder of embeddings, and leaves every other network as it is, bit for bit."""
    view = small_world(unit_interval=False)
    one, other = (after_training(view, narrow(attribute_noise=noise)) for noise in (0.02, 2.0))
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing
    assert all(".semantic_" in f".{name.split('.', 1)[1]}" for name in differing), differing
    assert not any(name.startswith("network.") for name in differing)


def test_the_relation_is_with_the_embedding_itself_and_the_classifier_sees_h_s(small_world: World) -> None:
    view = small_world(unit_interval=False)
    method = SDDN(view, narrow(), seed=1)
    assert method.visual_encoder is not None
    assert method.relation is not None
    w = method.visual_encoder.only
    h_s = F.leaky_relu(view.features @ w.weight.T + w.bias, 0.2)[:, :6].detach()
    torch.testing.assert_close(method.represent(view.features), h_s)
    q = method.relation
    assert q.semantic.in_features == view.embeddings.shape[1] != method.settings.half
    for i in (0, 17, 40):
        for k in (0, 3, 15):
            both = torch.cat([h_s[i], view.embeddings[k]])
            first = torch.cat([q.visual.weight, q.semantic.weight], dim=1)
            expected = F.relu(first @ both + q.semantic.bias) @ q.score.weight[0] + q.score.bias
            assert float(q(h_s[i : i + 1], view.embeddings[k : k + 1]).detach()) == pytest.approx(
                float(expected.detach()), abs=1e-5
            )


@pytest.mark.parametrize(("row", "part"), [("no relation matching", "relation"), ("no independence", "visual_judge")])
def test_rows_of_the_ablation_leave_one_part_out(row: str, part: str, small_world: World) -> None:
    entry = METHODS["sdgzsl"]
    assert entry.ablations is ABLATIONS  # type: ignore[union-attr]
    view = small_world()
    whole, without = (SDDN(view, narrow(**changes), seed=1) for changes in ({}, ABLATIONS[row]))
    assert getattr(whole, part) is not None
    assert getattr(without, part) is None
