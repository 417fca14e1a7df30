"""What every method owes the rest of the library: asked of ours, of the example of docs/how-to/add-a-method.md and, by
`pytest tests/contract --method MODULE:ENTRY` or `--method NAME` of an installed one, of that method alone.

What a method does otherwise than the rest stands in `OTHERWISE`, with the reason. A module that is not ours states the same,
if there is anything to state, in a dictionary named `CONTRACT`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.data import Dataset
from unseen.errors import SettingsError
from unseen.evaluation.metrics import per_class_accuracy
from unseen.evaluation.protocol import Task, run
from unseen.gate import GatedScores, entropy
from unseen.methods import METHODS, ClosedForm, Generative, find_method, with_settings
from unseen.methods.base import ClassStreams, Clock, GenerativeMethod, PreparingMethod, SamplesRepresented, Schedule
from unseen.methods.installed import NAME, declared
from unseen.recipe import Recipe
from unseen.scaling import ScaledView
from unseen.training import train

World = Callable[..., ScaledView]

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_method" / "own_method.py"
SMALL: dict[str, Any] = {
    "hidden": 16, "half": 12, "refiner": 16, "warm_up": 1,
    "decoder_hidden": 16, "embedding_hidden": 16, "embedding_decoder_hidden": 16, "cross_from": 0, "alignment_from": 0,
}  # fmt: skip
"""Replaces these of the default hyper-parameters, where a method has them."""
CHANGES: dict[str, dict[str, Any]] = {
    # Form of the features → what else differs: the published form of each method, and the one for data without a preset.
    "in [0, 1]": {"embedding_noise": 0.0, "sample_noise": False},
    "linear": {},
}
BY_HEART = {
    "lr": 1e-2, "decoder_lr": 1e-2, "feedback_lr": 1e-2, "critic_iterations": 1, "embedding_noise": 0.0, "sample_noise": False,
}  # fmt: skip
"""For the eight samples: learns them by heart within a few hundred steps."""

VAE_GAN: dict[str, Any] = {
    "reconstruction": "vae",
    "never_changes": {"network.critic.score.bias": "it cancels between real and fake"},
}
FLOW: dict[str, Any] = {
    "likelihood": "likelihood",
    "leaves_unit_interval": "a flow's samples are not clipped",
}
SDGZSL: dict[str, Any] = {
    "reconstruction": "reconstruction",
    "bernoulli": False,
    "leaves_unit_interval": "SDGZSL's generator ends in a leaky ReLU",
    "by_heart": {"encoder_dropout": 0.0, "generator_dropout": 0.0},
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "prompting": {"one_space": True},
    "clswgan": {
        "leaves_unit_interval": "the published generator ends in a ReLU",
        "never_changes": VAE_GAN["never_changes"],
        "by_heart": {"critic_iterations": 5},  # no reconstruction leads it
    },
    "cadavae": {
        "reconstruction": "features",
        "bernoulli": False,
        "leaves_unit_interval": "its decoder ends linearly, under the paper's L1",
    },
    "fvaegan": VAE_GAN,
    "tfvaegan": VAE_GAN,
    "tfvaegan-transductive": {
        **VAE_GAN,
        "never_changes": {
            "network.inductive.critic.score.bias": "it cancels between real and fake",
            "network.critic.score.bias": "it cancels between real and fake",
            "network.critic.semantic.weight": "the second critic has no condition",
            "prior": "uniform",
        },
        "by_heart": {"gamma_G2": 0.1},  # its unlabelled rows here are of other classes than it takes them for
    },
    "gsmflow": {
        **FLOW,
        "by_heart": {"lambda_p": 10.0},  # with 1 a sample in a hundred strays from its mean in so short a training
        "parts": {"lambda_p": ("prototype_classes", 2)},
        "never_changes": {"network.positioning.anchors": "embeddings of three classes"},
    },
    "dfca": {
        **FLOW,
        "parts": {"lambda_c": ("normalize_target", True), "lambda_cls": ("cls_classes", "seen")},
        "never_changes": {"network.mapping.anchors": "embeddings of three classes"},
    },
    "bsegn": {
        **VAE_GAN,
        "never_changes": {**VAE_GAN["never_changes"], "network.centre": "the mean embedding of the classes of training"},
        "by_heart": {"cycle_lr": 1e-2, "fem_lr": 1e-2},
        "parts": {"lambda_bal": ("balance", "B2")},
    },
    "sdgzsl": SDGZSL,
    "sddn": SDGZSL,
}


@dataclass(frozen=True)
class Subject:
    """A generative method under test, and what has to be known of it beforehand.

    Args:
        entry: of the table of methods, or of another distribution.
        reconstruction: the logged term that says how well training rows are reconstructed; nothing if there is none.
        likelihood: the logged term that is their negative log-likelihood in nats a dimension; nothing if there is none.
        leaves_unit_interval: why samples may leave [0, 1] where features do not; nothing if they may not.
        bernoulli: features in [0, 1] are reconstructed under a Bernoulli, whose targets have an entropy.
        never_changes: entry of the state → why no training changes it.
        parts: weight → a setting that only the part has which that weight turns off, and another value of it.
        by_heart: further settings with which it learns eight samples by heart within 300 steps.
    """

    entry: Generative
    reconstruction: str = ""
    likelihood: str = ""
    bernoulli: bool = True
    leaves_unit_interval: str = ""
    never_changes: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    by_heart: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, view: ScaledView, **changes: Any) -> Any:
        """Default hyper-parameters, narrow; of the changes those that the method knows."""
        hyperparameters, _ = self.entry.default(len(view.seen), view.features.shape[1], view.embeddings.shape[1])
        known = {f.name for f in fields(hyperparameters)}
        form = CHANGES["in [0, 1]" if view.unit_interval else "linear"]
        return replace(hyperparameters, **{k: v for k, v in (SMALL | form | changes).items() if k in known})

    def build(self, view: ScaledView, seed: int = 0, **changes: Any) -> GenerativeMethod:
        """The method, untrained."""
        if self.entry.transductive and view.unlabelled is None:
            view = replace(view, unlabelled=view.features.flip(0)[:20].clone())
        return self.entry.build(view, self.settings(view, **changes), seed)


@dataclass(frozen=True)
class Solved:
    """A closed-form method under test, and what has to be known of it beforehand.

    Args:
        solver: its class.
        one_space: it compares features with embeddings, so it needs a world where both are in one space.
    """

    solver: Any
    one_space: bool = False

    def world(self, view: ScaledView) -> ScaledView:
        """The view, or one where a row is its class's embedding and some noise, brought to one length."""
        if not self.one_space:
            return view
        noise = torch.randn(len(view.labels), view.embeddings.shape[1], generator=torch.Generator().manual_seed(11))
        return replace(view, features=20 * F.normalize(view.embeddings[view.labels] + 0.1 * noise, dim=1))


# ------------------------------------------------------------------------------------------------ which methods are asked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`subject` goes through the generative methods, `closed_form` through the closed-form ones, `entry` through all."""
    typed = metafunc.config.getoption("--method", None)
    chosen = [named(typed)] if typed else [*((e, OTHERWISE.get(name, {})) for name, e in METHODS.items()), example()]
    subjects = [Subject(entry, **otherwise) for entry, otherwise in chosen if isinstance(entry, Generative)]
    entries = [entry for entry, _ in chosen]
    for argument, values in {
        "subject": {s.entry.name: s for s in subjects},
        "closed_form": {e.name: Solved(e.hyperparameters, **o) for e, o in chosen if isinstance(e, ClosedForm)},
        "entry": {e.name: e for e in entries},
    }.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(values.values()), ids=list(values), scope="module")


def example() -> tuple[Generative | ClosedForm, dict[str, Any]]:
    """The entry of the how-to's example, which is not installed, and what it states."""
    if (module := sys.modules.get("the_example")) is None:
        spec = importlib.util.spec_from_file_location("the_example", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["the_example"] = importlib.util.module_from_spec(spec)  # dataclasses look there
        spec.loader.exec_module(module)
    return module.ENTRY, module.CONTRACT


def named(typed: str) -> tuple[Generative | ClosedForm, dict[str, Any]]:
    """The entry that was named on the command line and what its module states of it."""
    if typed in METHODS:
        return METHODS[typed], OTHERWISE.get(typed, {})
    try:
        if ":" not in typed:
            find_method(typed)
            typed = declared()[typed][0].value
        module, _, attribute = typed.partition(":")
        entry = getattr(import_module(module), attribute)
    except (SettingsError, ModuleNotFoundError, AttributeError) as error:
        raise pytest.Collector.CollectError(f"--method {typed}: {error}") from error
    if not isinstance(entry, Generative | ClosedForm):
        raise pytest.Collector.CollectError(f"--method {typed} is a {type(entry).__name__}, not a Generative or a ClosedForm")
    return entry, getattr(sys.modules[module], "CONTRACT", {})


# ----------------------------------------------------------------------------------------------------------------- helpers


class Rows:
    """Batches of a view, the same for the same seed."""

    def __init__(self, view: ScaledView, size: int = 16, seed: int = 0) -> None:
        self.view, self.size = view, size
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self) -> tuple[Tensor, Tensor]:
        rows = torch.randperm(len(self.view.labels), generator=self.generator)[: self.size]
        return self.view.features[rows], self.view.labels[rows]


def advance(method: GenerativeMethod, draw: Rows, steps: range, per_epoch: int = 2) -> list[dict[str, Tensor]]:
    """Two steps a loop, so that a few of them go through every loop of an epoch; before the first, what there is to prepare."""
    if steps.start == 0 and isinstance(method, PreparingMethod):
        prepare(method, draw, range(method.preparation))
    return [method.step(draw, Clock(step, per_epoch)) for step in steps]


def prepare(method: PreparingMethod, draw: Rows, steps: range) -> list[dict[str, Tensor]]:
    return [method.prepare(draw, Clock(step, 2)) for step in steps]


def preparing(subject: Subject, view: ScaledView, seed: int = 0, **changes: Any) -> PreparingMethod:
    """The method, if it has something to prepare."""
    method = subject.build(view, seed, **changes)
    if not isinstance(method, PreparingMethod) or not method.preparation:
        pytest.skip("nothing to prepare")
    return method


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def networks(method: GenerativeMethod) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state().items() if name.startswith("network.")}


def parameters(method: GenerativeMethod) -> dict[str, Tensor]:
    """Those that can be trained, of a method that is a module."""
    named = method.named_parameters() if isinstance(method, torch.nn.Module) else ()
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def unmoved(method: GenerativeMethod, start: dict[str, Tensor]) -> dict[str, bool]:
    return {name: torch.equal(value, start[name]) for name, value in parameters(method).items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def streams(view: ScaledView, seed: int = 0) -> ClassStreams:
    return ClassStreams(seed, view.names, view.device)


@pytest.fixture(params=list(CHANGES), scope="module")
def view(request: pytest.FixtureRequest, small_world: World) -> ScaledView:
    return small_world(unit_interval=request.param == "in [0, 1]")


@pytest.fixture(scope="module")
def trained(subject: Subject, view: ScaledView) -> GenerativeMethod:
    """200 steps by the training loop itself, which stops at the first loss that is not finite."""
    method = subject.build(view)
    looked: list[float] = []
    train(method, view, 200, seed=0, on_progress=lambda progress: looked.extend(progress.losses.values()))
    assert len(looked) >= 20
    return method


# ------------------------------------------------------------------------------------------------------------- training


def test_a_step_returns_scalars_without_graph(subject: Subject, view: ScaledView) -> None:
    for log in advance(subject.build(view), Rows(view), range(4)):
        assert log
        for term, value in log.items():
            assert value.shape == (), term
            assert not value.requires_grad, term
            assert value.isfinite(), term


def test_the_schedule_is_that_of_the_method_that_is_built(subject: Subject, view: ScaledView) -> None:
    for changes in ({}, {"feedback_loops": 1, "batch_size": 7}):
        method = subject.build(view, **changes)
        assert subject.entry.schedule(subject.settings(view, **changes)) == Schedule(method.batch_size, method.loops)


def test_200_steps_stay_finite(trained: GenerativeMethod) -> None:
    for entry, value in trained.state().items():
        assert value.isfinite().all(), entry


def test_every_parameter_learns(subject: Subject, view: ScaledView) -> None:
    """From some step of an epoch, through all its loops."""
    method = subject.build(view)
    before, start = networks(method), parameters(method)
    advance(method, Rows(view), range(2 * method.loops))
    same = {entry for entry, value in networks(method).items() if torch.equal(value, before[entry])}
    assert same == subject.never_changes.keys() & before.keys()
    # Also those that neither synthesis nor representation needs, so that they are no network.
    names = {f"network.{name}" for name, same in unmoved(method, start).items() if same}
    assert names <= subject.never_changes.keys()


def test_each_optimiser_moves_its_own_parameters_alone(
    subject: Subject, view: ScaledView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every parameter that can be trained belongs to one optimiser, and no step of another changes it."""
    method = subject.build(view)
    if not isinstance(method, torch.nn.Module) or not hasattr(method, "optimisers"):
        pytest.skip("it does not show its optimisers")
    owner = {
        id(p): name
        for name, optimiser in method.optimisers.items()
        for group in optimiser.param_groups
        for p in group["params"]
    }
    assert owner.keys() == {id(p) for p in method.parameters() if p.requires_grad}
    assert len(owner) == sum(len(g["params"]) for o in method.optimisers.values() for g in o.param_groups)
    stepped: set[str] = set()

    def watched(name: str, step: Callable[[], None]) -> None:
        others = [(p, p.detach().clone()) for p in method.parameters() if owner.get(id(p)) != name]
        step()
        assert all(torch.equal(p, kept) for p, kept in others), name
        stepped.add(name)

    for name, optimiser in method.optimisers.items():
        monkeypatch.setattr(optimiser, "step", lambda name=name, step=optimiser.step: watched(name, step))
    advance(method, Rows(view), range(2 * method.loops))
    assert stepped == method.optimisers.keys()


def test_training_writes_to_none_of_its_data(subject: Subject, view: ScaledView) -> None:
    versions = [t._version for t in (view.features, view.labels, view.embeddings, view.seen, view.unseen)]
    method = subject.build(view)
    advance(method, Rows(view), range(4))
    method.represent(method.sample(view.unseen, streams(view)))
    assert [t._version for t in (view.features, view.labels, view.embeddings, view.seen, view.unseen)] == versions


def test_eight_samples_are_learnt_by_heart(subject: Subject, view: ScaledView) -> None:
    """The reconstruction, if there is one, falls below a fifth of its start; a likelihood grows by a quarter of a nat a
    dimension; and every sample is nearest its own class's mean.

    (What is left of a Bernoulli reconstruction is mostly the entropy of its targets, so that is taken off.)
    """
    chosen = torch.tensor([0, 1, 20, 21, 35, 36, 50, 51])  # two each of four classes
    labels = view.labels[chosen]
    eight = replace(view, features=view.features[chosen], labels=labels, seen=labels.unique())
    assert len(eight.seen) == 4
    method = subject.build(eight, **{**BY_HEART, **subject.by_heart})
    logs = advance(method, Rows(eight), range(300))
    if subject.reconstruction:
        x = eight.features.double()
        counts = view.unit_interval and subject.bernoulli
        entropy = -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).sum(dim=1).mean() if counts else 0.0
        losses = [float(log[subject.reconstruction] - entropy) for log in logs]
        assert sum(losses[-10:]) / 10 < losses[0] / 5
    if subject.likelihood:
        losses = [float(log[subject.likelihood]) for log in logs]
        assert sum(losses[-10:]) / 10 < losses[0] - 0.25
    ids = eight.seen.repeat_interleave(25)
    means = torch.stack([eight.features[labels == k].mean(dim=0) for k in eight.seen])
    nearest = eight.seen[torch.cdist(method.sample(ids, streams(eight)), means).argmin(dim=1)]
    assert torch.equal(nearest, ids)


# ---------------------------------------------------------------------------------------------------------- preparation


def test_a_preparation_logs_scalars_and_makes_rows_of_seen_classes(subject: Subject, view: ScaledView) -> None:
    method = preparing(subject, view)
    for log in prepare(method, Rows(view), range(method.preparation)):
        assert log
        for term, value in log.items():
            assert value.shape == (), term
            assert not value.requires_grad, term
            assert value.isfinite(), term
    x, y = method.extra_rows()
    assert x.shape == (len(y), view.features.shape[1])
    assert x.dtype == view.features.dtype
    assert x.isfinite().all()
    assert not x.requires_grad
    assert torch.isin(y, view.seen).all()


def test_a_preparation_continues_bit_for_bit(subject: Subject, view: ScaledView) -> None:
    """Saved after any of its steps, loaded into a method of another seed."""
    method, draw = preparing(subject, view, seed=1, batch_size=16), Rows(view)
    saved = []
    for step in range(method.preparation):
        saved.append((copied(method.state()), draw.generator.get_state()))
        prepare(method, draw, range(step, step + 1))
    for step in sorted({0, 1, len(saved) // 2, len(saved) - 2, len(saved) - 1}):
        again, draw_again = preparing(subject, view, seed=2, batch_size=16), Rows(view)
        prepare(again, draw_again, range(1))
        kept, position = saved[step]
        untouched = copied(kept)
        again.load_state(kept)
        draw_again.generator.set_state(position)
        prepare(again, draw_again, range(step, method.preparation))
        assert differing(copied(method.state()), copied(again.state())) == []
        assert all(torch.equal(*rows) for rows in zip(method.extra_rows(), again.extra_rows(), strict=True))
        assert differing(kept, untouched) == [], "what was loaded is not written to"


# ------------------------------------------------------------------------------------------------- samples, representation


def test_samples_have_their_count_length_type_and_place(subject: Subject, trained: GenerativeMethod, view: ScaledView) -> None:
    ids = torch.tensor([14, 2, 2, 9, 0])  # seen classes can be synthesised too
    made = trained.sample(ids, streams(view))
    assert made.shape == (5, 24)
    assert made.dtype == view.features.dtype
    assert made.device == view.device
    assert not made.requires_grad
    assert not torch.equal(made[1], made[2]), "two samples of one class differ"
    if view.unit_interval and not subject.leaves_unit_interval:
        assert ((made >= 0) & (made <= 1)).all()
    assert trained.sample(ids[:0], streams(view)).shape == (0, 24)


def test_samples_follow_seed_and_class_name(trained: GenerativeMethod, view: ScaledView) -> None:
    ids = view.unseen.repeat_interleave(5)
    made = trained.sample(ids, streams(view, seed=1))
    assert torch.equal(made, trained.sample(ids, streams(view, seed=1)))
    assert not torch.isclose(made, trained.sample(ids, streams(view, seed=2))).all(dim=1).any()
    renamed = replace(view, names=tuple(n.upper() for n in view.names))
    assert not torch.isclose(made, trained.sample(ids, streams(renamed, seed=1))).all(dim=1).any()


def test_other_classes_may_come_go_and_move(subject: Subject, trained: GenerativeMethod, view: ScaledView) -> None:
    """A class is known by its name: its samples do not depend on which others there are, nor in what order."""
    ids = view.unseen.repeat_interleave(5)
    expected = trained.sample(ids, streams(view))

    def sample_in(table: list[int], asked: list[int]) -> dict[int, Tensor]:
        """Samples of the classes asked for, in a class table of these classes in this order."""
        place = {old: new for new, old in enumerate(table)}
        seen = torch.tensor(sorted(place[k] for k in view.seen.tolist() if k in place))
        moved = replace(
            view,
            embeddings=view.embeddings[table],
            names=tuple(view.names[k] for k in table),
            labels=torch.tensor([place.get(k, 0) for k in view.labels.tolist()]),
            seen=seen,
            unseen=torch.tensor(sorted(place[k] for k in view.unseen.tolist() if k in place)),
        )
        method = subject.build(moved)
        method.load_state(copied(trained.state()))
        made = method.sample(torch.tensor([place[k] for k in asked for _ in range(5)]), streams(moved))
        return dict(zip(asked, made.split(5), strict=True))

    own = dict(zip(view.unseen.tolist(), expected.split(5), strict=True))
    for table, asked in (
        (list(range(16)), [9]),
        (list(range(16)), [14, 2]),
        (list(reversed(range(16))), [2, 5, 9, 14]),
        ([k for k in range(16) if k != 5], [2, 9, 14]),
    ):
        for k, made in sample_in(table, asked).items():
            torch.testing.assert_close(made, own[k], rtol=0, atol=2e-6 * max(1.0, float(own[k].abs().max())))


def test_rows_are_represented_one_by_one(trained: GenerativeMethod, view: ScaledView) -> None:
    together = trained.represent(view.features)
    assert together.shape[0] == len(view.features)
    assert not together.requires_grad
    assert together.dtype == view.features.dtype
    for size in (1, 7):
        alone = torch.cat([trained.represent(part) for part in view.features.split(size)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6 * max(1.0, float(together.abs().max())))
    backwards = trained.represent(view.features.flip(0)).flip(0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-6 * max(1.0, float(together.abs().max())))
    assert trained.represent(view.features[:0]).shape == (0, together.shape[1])


def test_representation_knows_no_labels(subject: Subject, trained: GenerativeMethod, view: ScaledView) -> None:
    """It is the same in a world whose rows carry other labels and whose classes other embeddings."""
    other_world = replace(view, labels=view.labels.flip(0), embeddings=view.embeddings.flip(0))
    other = subject.build(other_world)
    other.load_state(copied(trained.state()))
    assert torch.equal(other.represent(view.features), trained.represent(view.features))


def test_a_random_representation_is_as_wide_as_its_mean_and_follows_seed_and_class_name(
    trained: GenerativeMethod, view: ScaledView
) -> None:
    if not isinstance(trained, SamplesRepresented):
        pytest.skip("its representation is not random")
    width = trained.represent(view.features[:1]).shape[1]
    renamed = replace(view, names=tuple(n.upper() for n in view.names))
    for verb in (
        trained.sample_represented,
        lambda ids, drawn: trained.represent_for_fitting(view.features[: len(ids)], ids, drawn),
    ):
        ids = view.labels[:20]
        made = verb(ids, streams(view, seed=1))
        assert made.shape == (20, width)
        assert made.dtype == view.features.dtype
        assert not made.requires_grad
        assert torch.equal(made, verb(ids, streams(view, seed=1)))
        assert not torch.isclose(made, verb(ids, streams(view, seed=2))).all(dim=1).any()
        assert not torch.isclose(made, verb(ids, streams(renamed, seed=1))).all(dim=1).any()
        assert verb(ids[:0], streams(view)).shape == (0, width)


# ------------------------------------------------------------------------------------------------------------------ gate


def test_behind_the_gate_each_row_is_answered_by_the_expert_that_the_detector_names(
    subject: Subject, small_world: World, tiny_world: Callable[..., Dataset]
) -> None:
    """A whole run with `classifier=ood`, which every generative method can be given."""
    hyperparameters = subject.settings(small_world(unit_interval=False), pretraining_epochs=1, batch_size=16)
    _, recipe = subject.entry.default(12, 24, 8)
    short = replace(recipe, classifier="ood", steps=20, classifier_epochs=5, classifier_batch=32, synthetic=20, gamma=0.0)
    outcome = run(Task(tiny_world(d=24, a=8), "main", subject.entry, hyperparameters, short, "default", "fixed", 0))
    predictor, test = outcome.predictor, outcome.test
    gated = predictor.generalized
    assert isinstance(gated, GatedScores)
    sent_to_seen = []
    for kind, x, labels, decisions in (
        ("S", test.seen_features, test.seen_labels, outcome.decisions[0]),
        ("U", test.unseen_features, test.unseen_labels, outcome.decisions[1]),
    ):
        u = predictor.represent(predictor.scaler.rows(x, torch.device("cpu")))
        sure = (entropy(gated.detector(u).double()) < gated.threshold).numpy()
        of_seen, of_unseen = (
            ids[expert(u).argmax(dim=1).numpy()]
            for ids, expert in zip((predictor.seen, predictor.unseen), gated.experts, strict=True)
        )
        answered = np.where(sure, of_seen, of_unseen)
        assert (decisions.predict(outcome.gamma) == answered).all()
        assert outcome.row[kind] == pytest.approx(per_class_accuracy(labels, answered))
        # A γ beyond every entropy sends all rows one way.
        assert (decisions.predict(-np.inf) == of_seen).all()
        assert (decisions.predict(np.inf) == of_unseen).all()
        sent_to_seen += sure.tolist()
    assert 0 < sum(sent_to_seen) < len(sent_to_seen), "rows went both ways, so the gate decided something"


# ------------------------------------------------------------------------------------------------------- seeds and state


def test_same_seed_same_bits_other_seed_other_bits(subject: Subject, view: ScaledView) -> None:
    methods = [subject.build(view, seed) for seed in (1, 1, 2)]
    logs = [advance(method, Rows(view), range(4)) for method in methods]
    one, same, other = (copied(method.state()) for method in methods)
    assert differing(one, same) == []
    assert all(differing(a, b) == [] for a, b in zip(logs[0], logs[1], strict=True))
    weights = [entry for entry in one if entry.startswith("network.") and entry.endswith(".weight")]
    assert set(weights) <= set(differing(one, other))


def test_state_continues_bit_for_bit(subject: Subject, view: ScaledView) -> None:
    """Saved anywhere in an epoch, loaded into a method of another seed, in whatever order the entries come."""
    for saved_after in (1, 2, 3):
        method, draw = subject.build(view, seed=1), Rows(view)
        advance(method, draw, range(saved_after))
        kept = {entry: value.clone() for entry, value in sorted(method.state().items(), reverse=True)}
        position = draw.generator.get_state()
        expected_logs = advance(method, draw, range(saved_after, 6))

        again, draw_again = subject.build(view, seed=2), Rows(view)
        advance(again, draw_again, range(2))
        untouched = copied(kept)
        again.load_state(kept)
        draw_again.generator.set_state(position)
        logs = advance(again, draw_again, range(saved_after, 6))
        assert differing(copied(method.state()), copied(again.state())) == []
        assert all(differing(a, b) == [] for a, b in zip(expected_logs, logs, strict=True))
        assert differing(kept, untouched) == [], "what was loaded is not written to"
        assert torch.equal(method.sample(view.unseen, streams(view)), again.sample(view.unseen, streams(view)))


def test_networks_alone_are_enough_to_sample_and_represent(
    subject: Subject, trained: GenerativeMethod, view: ScaledView
) -> None:
    """An evaluation loads no optimiser."""
    other = subject.build(view, seed=5)
    other.load_state({k: v.clone() for k, v in trained.state().items() if k.startswith("network.")})
    ids = view.unseen.repeat_interleave(3)
    assert torch.equal(other.sample(ids, streams(view)), trained.sample(ids, streams(view)))
    assert torch.equal(other.represent(view.features), trained.represent(view.features))


def test_synthesis_leaves_training_as_it_is(subject: Subject, view: ScaledView) -> None:
    quiet, asked = subject.build(view), subject.build(view)
    draws = Rows(view), Rows(view)
    for step in range(4):
        advance(quiet, draws[0], range(step, step + 1))
        asked.represent(asked.sample(view.unseen, streams(view)))
        advance(asked, draws[1], range(step, step + 1))
    assert differing(copied(quiet.state()), copied(asked.state())) == []


# --------------------------------------------------------------------------------------------------------- smaller methods


def test_a_weight_of_0_is_the_smaller_method_bit_for_bit(subject: Subject, view: ScaledView) -> None:
    """What only the part has that is off changes no bit of training; where it is on, it does."""
    for weight, (setting, other) in subject.parts.items():
        for switch, equal in ({weight: 0}, True), ({}, False):
            methods = [subject.build(view, **switch, **changes) for changes in ({}, {setting: other})]
            for method in methods:
                advance(method, Rows(view), range(4))
            states = [networks(method) for method in methods]
            assert (differing(*states) == []) == equal, (weight, setting)


# ------------------------------------------------------------------------------------------------------------- no leaks


def test_unseen_embeddings_train_nothing_unless_declared(subject: Subject, view: ScaledView) -> None:
    embeddings = view.embeddings.clone()
    embeddings[view.unseen] = -embeddings[view.unseen].roll(1, dims=1)
    methods = [subject.build(v) for v in (view, replace(view, embeddings=embeddings))]
    for method in methods:
        advance(method, Rows(view), range(6))
    changed = differing(*(copied(method.state()) for method in methods))
    assert bool(changed) == methods[0].uses_unseen_embeddings
    made = [method.sample(view.unseen, streams(view)) for method in methods]
    assert not torch.isclose(*made).all(dim=1).any(), "yet synthesis follows them"


def test_unseen_classes_may_be_fewer_in_training(subject: Subject, view: ScaledView) -> None:
    """Which classes are unseen, and how many, is not known to training unless declared."""
    methods = [subject.build(v) for v in (view, replace(view, unseen=view.unseen[:1]))]
    if methods[0].uses_unseen_embeddings:
        pytest.skip("declared: training looks at the unseen classes")
    for method in methods:
        advance(method, Rows(view), range(4))
    assert differing(*(copied(method.state()) for method in methods)) == []


# --------------------------------------------------------------------------------------------------- closed-form methods


def test_scores_have_their_shape_and_recognise_training_rows(closed_form: Solved, view: ScaledView) -> None:
    view = closed_form.world(view)
    fitted = closed_form.solver().fit(view)
    scores = fitted(view.features)
    assert scores.shape == (60, 16)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    among_seen = view.seen[scores[:, view.seen].argmax(dim=1)]
    # A bilinear map of 24 × 8 weights may miss some of 12 classes' rows; chance is 8 per cent.
    assert (among_seen == view.labels).float().mean() > 0.6
    again = closed_form.solver().fit(view)
    assert torch.equal(again.weight, fitted.weight)
    assert torch.equal(again.bias, fitted.bias)


def test_scores_transfer_to_unseen_classes(closed_form: Solved, view: ScaledView, small_world: World) -> None:
    """Class means are linear in the embeddings here, so unseen rows must be recognised better than by chance (25 %)."""
    view, everything = map(closed_form.world, (view, small_world(view.unit_interval, unseen_rows=True)))
    embeddings = F.normalize(view.embeddings - view.embeddings[view.seen].mean(dim=0), dim=1)  # as the command line does
    fitted = closed_form.solver().fit(replace(view, embeddings=embeddings))
    rows = torch.isin(everything.labels, view.unseen)
    scores = fitted(everything.features[rows])[:, view.unseen]
    assert (view.unseen[scores.argmax(dim=1)] == everything.labels[rows]).float().mean() >= 0.7


def test_scores_of_a_class_do_not_depend_on_unseen_ones(closed_form: Solved, view: ScaledView) -> None:
    view = closed_form.world(view)
    embeddings = view.embeddings.clone()
    embeddings[view.unseen[0]] = -embeddings[view.unseen[0]]
    one, other = (closed_form.solver().fit(v) for v in (view, replace(view, embeddings=embeddings)))
    kept = torch.tensor([k for k in range(16) if k != int(view.unseen[0])])
    assert torch.equal(one.weight[kept], other.weight[kept])
    assert torch.equal(one.bias[kept], other.bias[kept])
    assert not torch.allclose(one.weight[view.unseen[0]], other.weight[view.unseen[0]])


def test_order_of_rows_and_classes_is_no_part_of_a_solution(closed_form: Solved, view: ScaledView) -> None:
    view = closed_form.world(view)
    backwards = replace(
        view,
        features=view.features.flip(0),
        labels=15 - view.labels.flip(0),
        embeddings=view.embeddings.flip(0),
        names=view.names[::-1],
        seen=(15 - view.seen).flip(0),
        unseen=(15 - view.unseen).flip(0),
    )
    scores, turned = (closed_form.solver().fit(v)(view.features) for v in (view, backwards))
    torch.testing.assert_close(scores, turned.flip(1), rtol=1e-4, atol=1e-4 * float(scores.abs().max()))


def test_what_blind_tries_is_valid(closed_form: Solved, view: ScaledView) -> None:
    view = closed_form.world(view)
    assert 1 <= len(closed_form.solver.SCALINGS) <= 3
    assert set(closed_form.solver.GRID) == {f.name for f in fields(closed_form.solver)}
    for setting, values in closed_form.solver.GRID.items():
        assert all(low < high for low, high in pairwise(values))
        for value in values:
            assert closed_form.solver(**{setting: value}).fit(view).weight.isfinite().all()


# ----------------------------------------------------------------------------------------------------- name and settings


def test_it_has_a_name_of_its_own_and_a_title(entry: Generative | ClosedForm) -> None:
    assert NAME.fullmatch(entry.name)
    assert METHODS.get(entry.name, entry) is entry
    assert entry.title


def test_settings_can_be_typed_and_kept_in_files(entry: Generative | ClosedForm) -> None:
    """So they are numbers, strings and booleans, and none has the name of a recipe's that is used beside them."""
    if isinstance(entry, Generative):
        hyperparameters, recipe = entry.default(100, 512, 16)
        used = vars(recipe).keys()
    else:
        hyperparameters, recipe = entry.hyperparameters(), Recipe()
        used = {"scaling", "centred", "gamma"}
    assert type(hyperparameters) is entry.hyperparameters
    assert vars(hyperparameters).keys().isdisjoint(used)
    assert entry.hyperparameters(**json.loads(json.dumps(vars(hyperparameters)))) == hyperparameters
    typed = {name: str(value) for name, value in vars(hyperparameters).items()}
    assert with_settings(hyperparameters, recipe, typed) == (hyperparameters, recipe)


def test_presets_and_scalings_are_complete(subject: Subject) -> None:
    entry = subject.entry
    assert 1 <= len(entry.scalings) <= 3
    for hyperparameters, recipe in (entry.default(100, 512, 16), *entry.presets.values()):
        assert type(hyperparameters) is entry.hyperparameters
        assert recipe.steps or recipe.epochs
        assert recipe.synthetic or recipe.synthetic_ratio


def test_rows_of_an_ablation_table_can_be_built_and_leave_width_and_length_alone(subject: Subject, view: ScaledView) -> None:
    whole, recipe = subject.entry.default(len(view.seen), view.features.shape[1], view.embeddings.shape[1])
    for row, changes in subject.entry.ablations.items():
        assert row
        assert changes.keys().isdisjoint({"hidden", "batch_size", *vars(recipe)}), row
        assert replace(whole, **changes) != whole, row
        advance(subject.build(view, **changes), Rows(view), range(2))
