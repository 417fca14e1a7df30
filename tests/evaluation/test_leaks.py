"""What a run may not know: test rows while it chooses and trains, unseen embeddings while it chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen.data import Dataset
from unseen.evaluation.protocol import Outcome, Task, is_transductive, run
from unseen.methods import METHODS, Generative

World = Callable[..., Dataset]
MakeTask = Callable[..., Task]

pytestmark = pytest.mark.usefixtures("few_candidates")


def everything_learned(outcome: Outcome) -> dict[str, bytes]:
    """Every bit that the run learned or chose."""
    predictor = outcome.predictor
    learned = {f"scaler {name}": array.tobytes() for name, array in predictor.scaler.arrays().items()}
    for name, scores in (("generalized", predictor.generalized), ("conventional", predictor.conventional)):
        learned[name] = scores.weight.numpy().tobytes() + scores.bias.numpy().tobytes()
    if outcome.trained is not None:
        learned |= {name: tensor.numpy().tobytes() for name, tensor in outcome.trained.state().items()}
    chosen = {key: outcome.row[key] for key in ("selection", "recipe", "hyperparameters", "gamma", "steps")}
    return learned | {"spread": str(predictor.spread).encode(), "chosen": repr(chosen).encode()}


def poisoned(world: Dataset, value: float) -> Dataset:
    """The same data set with this value in every test row, as if the file had changed after it was checked."""
    split = world.split("main")
    features = world.features.copy()
    features[[*split.test_seen, *split.test_unseen]] = value
    return replace(world, features=features)


def small_task(data: Dataset, tiny_task: MakeTask, method: str, protocol: str) -> Task:
    """A task of any method, with its own default settings made narrow and short."""
    task = tiny_task(data, protocol, method, steps=12)
    if not isinstance(entry := METHODS[method], Generative):
        return task
    settings, _ = entry.default(8, data.features.shape[1], data.classes.embeddings.shape[1])
    narrow = {"hidden": 16, "half": 12, "refiner": 16, "batch_size": 32, "warm_up": 0, "relation_epochs": 2}
    return replace(
        task, hyperparameters=replace(settings, **{name: value for name, value in narrow.items() if name in vars(settings)})
    )


INDUCTIVE = [name for name, entry in METHODS.items() if not is_transductive(entry)]
"""What the others may know is asked in test_transductive.py."""


@pytest.mark.parametrize(("method", "protocol"), [(name, protocol) for protocol in ("fixed", "blind") for name in INDUCTIVE])
def test_poisoned_test_rows_change_nothing_that_is_learned(
    tiny_world: World, tiny_task: MakeTask, method: str, protocol: str
) -> None:
    world = tiny_world(seen=8, unseen=3, a=16)  # as long as features, which prompting needs
    clean = run(small_task(world, tiny_task, method, protocol))
    learned = everything_learned(clean)
    for value in (np.nan, 1e30):
        with np.errstate(all="ignore"):
            spoiled = run(small_task(poisoned(world, value), tiny_task, method, protocol))
        assert everything_learned(spoiled) == learned
        assert spoiled.row["features_hash"] != clean.row["features_hash"]  # the poison was there


def test_poison_in_training_rows_would_be_noticed(tiny_world: World, tiny_task: MakeTask) -> None:
    """The comparison above can fail: one changed training value changes what is learned."""
    world = tiny_world(seen=8, unseen=3)
    features = world.features.copy()
    features[world.split("main").train[0], 0] += 1
    changed = replace(world, features=features)
    assert everything_learned(run(tiny_task(changed))) != everything_learned(run(tiny_task(world)))


def without_unseen(task: Task) -> Task:
    """The same task with the settings under which training looks at no unseen embedding."""
    wanted = {"cls_classes": "seen", "anchor_classes": "seen", "unseen_rows": False}
    known = {name: value for name, value in wanted.items() if name in vars(task.hyperparameters)}
    return replace(task, hyperparameters=replace(task.hyperparameters, **known)) if known else task


@pytest.mark.parametrize("method", [name for name in INDUCTIVE if name not in ("bsegn", "prompting")])
def test_choices_do_not_depend_on_unseen_embeddings(tiny_world: World, tiny_task: MakeTask, method: str) -> None:
    world = tiny_world(seen=8, unseen=3)
    embeddings = world.classes.embeddings.copy()
    embeddings[world.split("main").unseen] = np.random.default_rng(9).normal(size=(3, embeddings.shape[1]))
    other = replace(world, classes=replace(world.classes, embeddings=embeddings))
    ours, theirs = (run(without_unseen(small_task(data, tiny_task, method, "blind"))) for data in (world, other))
    assert ours.row["embeddings_hash"] != theirs.row["embeddings_hash"]
    assert ours.row["selection"] == theirs.row["selection"]
    if ours.trained is not None and theirs.trained is not None:
        assert not ours.row["uses_unseen_embeddings"]
        states = ours.trained.state(), theirs.trained.state()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_is_handed_no_test_tensor(tiny_world: World, tiny_task: MakeTask) -> None:
    """Whatever a method is built from holds training rows only."""
    world = tiny_world(seen=8, unseen=3)
    task = tiny_task(world, "blind", steps=12)
    handed = []

    def build(view, hyperparameters, seed):  # type: ignore[no-untyped-def]
        handed.append(view)
        return task.method.build(view, hyperparameters, seed)  # type: ignore[union-attr]

    run(replace(task, method=replace(task.method, build=build)))
    most = len(world.split("main").train)
    assert len(handed) > 3
    for view in handed:
        tensors = [v for v in vars(view).values() if isinstance(v, torch.Tensor)]
        assert max(len(t) for t in tensors) <= most
        assert not set(view.labels.tolist()) & set(view.unseen.tolist())
