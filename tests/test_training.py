"""The loop: what it draws, what it tells, what it saves, and that stopping changes nothing but the time."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unseen.training
from unseen.data import Dataset
from unseen.errors import DataError, Diverged, SettingsError, Stopped
from unseen.methods import find_method
from unseen.methods.base import Clock, Draw, GenerativeMethod, Schedule, Streams
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.storage import read_arrays, write_arrays
from unseen.training import Progress, train, training_steps

CPU = torch.device("cpu")


@dataclass
class Walk:
    """A method of one number: it walks with the rows it draws, with its own noise and with the clock.

    Args:
        broken: step (counted from 0) → what the term `late` of its loss is there.
        late_from: the step from which there is that term.
        signals: step → a signal that the process gets in the middle of it.
    """

    seed: int = 0
    batch_size: int = 5
    broken: Mapping[int, float] = field(default_factory=dict)
    late_from: int = 0
    signals: Mapping[int, signal.Signals] = field(default_factory=dict)
    loops: int = 1
    uses_unseen_embeddings: bool = False
    drawn: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = torch.zeros(3)
        self.streams = Streams(self.seed, CPU)

    def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        x, y = draw()
        self.drawn.append((x, y))
        self.clocks.append(clock)
        self.at = 0.9 * self.at + x.mean() + self.streams.normal("noise", 3) + clock.step / 7
        if clock.step in self.signals:
            signal.raise_signal(self.signals[clock.step])
        late = {"late": torch.tensor(self.broken.get(clock.step, 1.0))} if clock.step >= self.late_from else {}
        return {"step": torch.tensor(float(clock.step)), **late}

    def state(self) -> dict[str, Tensor]:
        return {"network.at": self.at} | {f"stream.{n}": s for n, s in self.streams.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.at = state["network.at"]
        self.streams.load_state({n.removeprefix("stream."): s for n, s in state.items() if n.startswith("stream.")})

    def sample(self, class_ids: Tensor, streams: object) -> Tensor:
        raise NotImplementedError

    def represent(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def view(toy: Dataset) -> ScaledView:
    training = toy.training_view()
    return Scaler.fit(training, "minmax", centred=False).view(training, CPU)


def trained(view: ScaledView, steps: int = 50, seed: int = 3) -> Walk:
    """What an undisturbed training gives."""
    walk = Walk()
    train(walk, view, steps, seed)
    return walk


# --- draws and clock


def test_a_batch_holds_distinct_training_rows_with_their_own_labels(view: ScaledView) -> None:
    walk = trained(view, steps=40)
    number = {tuple(row.tolist()): k for k, row in enumerate(view.features)}
    assert len(number) == len(view.features)  # so a row can be told by its values
    used = set()
    for x, y in walk.drawn:
        picked = [number[tuple(row.tolist())] for row in x]
        assert len(set(picked)) == 5
        assert torch.equal(y, view.labels[picked])
        used |= set(picked)
    assert len(used) > 60  # of 72: the draws go everywhere


def test_a_batch_larger_than_the_data_is_the_data(view: ScaledView) -> None:
    walk = Walk(batch_size=1000)
    train(walk, view, 2, 0)
    assert walk.clocks[0].steps_per_epoch == 1
    for x, y in walk.drawn:
        assert torch.equal(x.sort(dim=0).values, view.features.sort(dim=0).values)
        assert torch.equal(y.sort().values, view.labels.sort().values)


def test_the_order_of_rows_follows_from_the_seed_alone(view: ScaledView) -> None:
    first, again, other = trained(view), trained(view), trained(view, seed=4)
    assert torch.equal(first.at, again.at)
    assert not torch.equal(first.at, other.at)
    # the method's own streams do not shift the rows
    different = Walk(seed=9)
    train(different, view, 50, 3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first.drawn, different.drawn, strict=True))


def test_the_clock_counts_steps_and_steps_per_epoch(view: ScaledView) -> None:
    walk = trained(view, steps=4)
    assert walk.clocks == [Clock(step, 15) for step in range(4)]  # 72 rows in batches of 5


def test_steps_are_those_given_or_the_epochs_of_every_loop(view: ScaledView) -> None:
    schedule = Schedule(batch_size=5, loops=2)
    assert training_steps(Recipe(steps=7, epochs=3), schedule, view) == 7
    assert training_steps(Recipe(epochs=3), schedule, view) == 3 * 2 * 15
    with pytest.raises(SettingsError, match=r"steps=0 and epochs=0 train nothing; give a length"):
        training_steps(Recipe(), schedule, view)


# --- what it tells


def test_progress_comes_every_ten_steps_and_at_the_end_with_means_of_the_losses_since(view: ScaledView) -> None:
    told: list[Progress] = []
    train(Walk(), view, 24, 0, on_progress=told.append)
    assert [(p.step, p.steps) for p in told] == [(10, 24), (20, 24), (24, 24)]
    assert [p.losses for p in told] == [{"step": 4.5, "late": 1.0}, {"step": 14.5, "late": 1.0}, {"step": 21.5, "late": 1.0}]
    assert all(p.steps_per_second > 0 for p in told)


def test_the_mean_of_a_loss_is_over_the_steps_that_had_it(view: ScaledView) -> None:
    """As of a relation network's, where mining begins between two reports."""
    told: list[Progress] = []
    train(Walk(late_from=7), view, 10, 0, on_progress=told.append)
    assert [p.losses for p in told] == [{"step": 4.5, "late": 1.0}]


def test_time_left_follows_from_the_speed() -> None:
    assert Progress(20, 50, {}, 4.0).seconds_left == 7.5
    assert Progress(50, 50, {}, 4.0).seconds_left == 0


def test_speed_counts_only_the_steps_of_this_process(view: ScaledView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(Walk(), view, 40, 0, checkpoint=checkpoint)
    ticks = iter(range(1000))
    monkeypatch.setattr(unseen.training.time, "monotonic", lambda: float(next(ticks)))
    told: list[Progress] = []
    train(Walk(), view, 50, 0, checkpoint=checkpoint, checkpoint_seconds=1e9, on_progress=told.append)
    assert [(p.step, p.steps_per_second <= 10) for p in told] == [(50, True)]  # ten steps, not fifty, in a tick or more


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_term(view: ScaledView, tmp_path: Path, value: float) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    walk = Walk(broken={26: value, 28: value})
    with pytest.raises(Diverged, match=rf"the term 'late' of the loss is {value} at step 27;") as caught:
        train(walk, view, 100, 0, checkpoint=checkpoint, checkpoint_seconds=0)
    assert not isinstance(caught.value, Stopped)
    assert len(walk.clocks) == 30  # no later than the next look
    # what was saved before the trouble is still there and good
    assert read_arrays(checkpoint)[1]["step"] == "20"
    healed = Walk()
    train(healed, view, 50, 0, checkpoint=checkpoint)
    assert torch.equal(healed.at, trained(view, seed=0).at)


# --- snapshots


def test_snapshots_show_the_method_after_just_these_steps(view: ScaledView) -> None:
    walk, seen = Walk(), {}
    train(walk, view, 30, 3, snapshots=(3, 10, 30), on_snapshot=lambda step: seen.update({step: walk.at.clone()}))
    assert list(seen) == [3, 10, 30]
    for step, at in seen.items():
        assert torch.equal(at, trained(view, steps=step).at)


def test_a_snapshot_is_taken_before_the_checkpoint_that_would_skip_it(view: ScaledView, tmp_path: Path) -> None:
    """Killed between the two, the other way round, a resumed training would never take it."""
    checkpoint, saved = tmp_path / "checkpoint.safetensors", []

    def on_snapshot(step: int) -> None:
        saved.append(int(read_arrays(checkpoint)[1]["step"]) if checkpoint.exists() else 0)

    train(Walk(), view, 20, 0, checkpoint=checkpoint, checkpoint_seconds=0, snapshots=(10, 20), on_snapshot=on_snapshot)
    assert saved == [0, 10]


# --- stopping and going on


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_how_often_is_saved_changes_neither_the_training_nor_what_is_told(
    view: ScaledView, tmp_path: Path, seconds: float
) -> None:
    walk, told, plain = Walk(), [], []
    train(walk, view, 47, 3, checkpoint=tmp_path / "c", checkpoint_seconds=seconds, on_progress=told.append)
    train(Walk(), view, 47, 3, on_progress=plain.append)
    assert torch.equal(walk.at, trained(view, steps=47).at)
    assert [(p.step, p.losses) for p in told] == [(p.step, p.losses) for p in plain]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 9, 12, 48])
def test_a_signal_stops_after_a_whole_step_and_the_rest_is_as_if_nothing_had_been(
    view: ScaledView, tmp_path: Path, number: signal.Signals, at: int
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"training was stopped; it is saved up to step {at + 1} of 50"):
        train(Walk(signals={at: number}), view, 50, 3, checkpoint=checkpoint)
    assert signal.getsignal(number) == before
    assert read_arrays(checkpoint)[1]["step"] == str(at + 1)
    walk = Walk()
    train(walk, view, 50, 3, checkpoint=checkpoint)
    assert walk.clocks[0].step == at + 1
    assert torch.equal(walk.at, trained(view).at)


def test_a_signal_in_the_last_step_is_heeded_too(view: ScaledView, tmp_path: Path) -> None:
    """Else the caller would go on to whatever comes next, and Ctrl-C would have done nothing."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped, match="saved up to step 50 of 50"):
        train(Walk(signals={49: signal.SIGTERM}), view, 50, 3, checkpoint=checkpoint)
    walk = Walk()
    train(walk, view, 50, 3, checkpoint=checkpoint)
    assert torch.equal(walk.at, trained(view).at)


@pytest.mark.parametrize("during", ["progress", "snapshot"])
def test_a_signal_between_two_steps_never_claims_to_have_saved_what_it_has_not(
    view: ScaledView, tmp_path: Path, during: str
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        train(
            Walk(),
            view,
            50,
            3,
            checkpoint=checkpoint,
            checkpoint_seconds=1e9,
            snapshots=(10,),
            **({"on_progress": stop} if during == "progress" else {"on_snapshot": stop}),
        )
    assert f"saved up to step {read_arrays(checkpoint)[1]['step']} of 50" in str(caught.value)
    walk = Walk()
    train(walk, view, 50, 3, checkpoint=checkpoint)
    assert torch.equal(walk.at, trained(view).at)


def test_without_a_checkpoint_a_stop_says_that_nothing_is_saved(view: ScaledView) -> None:
    with pytest.raises(Stopped, match=r"training was stopped at step 3 of 50, and nothing was saved"):
        train(Walk(signals={2: signal.SIGINT}), view, 50, 3)


def test_a_second_interrupt_does_not_wait_for_the_step(view: ScaledView) -> None:
    class Stubborn(Walk):
        def step(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the step went on")

    with pytest.raises(KeyboardInterrupt):
        train(Stubborn(), view, 50, 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["clswgan", "cadavae", "tfvaegan", "fvaegan", "dfca", "gsmflow"])
def test_a_real_method_resumed_twice_equals_an_uninterrupted_one_bit_for_bit(
    name: str, view: ScaledView, tmp_path: Path
) -> None:
    entry = find_method(name)
    settings = replace(entry.default(72, 6, 4)[0], hidden=8, batch_size=8)  # type: ignore[union-attr]
    if hasattr(settings, "embedding_noise"):
        settings = replace(settings, embedding_noise=0.1)

    def build() -> GenerativeMethod:
        return entry.build(view, settings, 5)  # type: ignore[union-attr]

    whole = build()
    train(whole, view, 24, 3)
    checkpoint = tmp_path / "checkpoint.safetensors"
    for until in (7, 10, 24):  # 9 steps an epoch: the second loop, with feedback, begins in the second part
        part = build()
        train(part, view, until, 3, checkpoint=checkpoint)
    expected, found = whole.state(), part.state()
    assert expected.keys() == found.keys()
    assert any(key.startswith("optimiser.") for key in expected)
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key


def test_a_real_preparation_stopped_in_each_of_its_parts_equals_an_uninterrupted_one_bit_for_bit(
    view: ScaledView, tmp_path: Path
) -> None:
    entry = find_method("gsmflow")
    settings = replace(entry.default(72, 6, 4)[0], hidden=8, batch_size=8, relation_epochs=2)  # type: ignore[union-attr]
    whole = entry.build(view, settings, 5)  # type: ignore[union-attr]
    assert whole.preparation == 18 + 9  # type: ignore[attr-defined]
    train(whole, view, 12, 3)
    for stopped_at in (3, 17, 18, 22, 27):  # in relation training, at the seam, in mining, at its end
        checkpoint = tmp_path / f"{stopped_at}.safetensors"

        def stop(progress: Progress, at: int = stopped_at) -> None:
            if progress.steps == 27 and progress.step == at:
                signal.raise_signal(signal.SIGTERM)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unseen.training, "LOOK_EVERY", 1)
            with pytest.raises(Stopped, match="of 27 of the preparation"):
                train(entry.build(view, settings, 5), view, 12, 3, checkpoint=checkpoint, on_progress=stop)  # type: ignore[union-attr]
        part = entry.build(view, settings, 5)  # type: ignore[union-attr]
        train(part, view, 12, 3, checkpoint=checkpoint)
        expected, found = whole.state(), part.state()
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), (stopped_at, key)


# --- preparation


@dataclass
class PreparedWalk(Walk):
    """A walk that first goes a few steps elsewhere and marks two rows on the way, which later draws then contain."""

    preparation: int = 12
    prepared: list[Clock] = field(default_factory=list)
    drawn_before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.marks = torch.zeros(2, 6)

    def prepare(self, draw: Draw, clock: Clock) -> dict[str, Tensor]:
        self.prepared.append(clock)
        x, y = draw()
        self.drawn_before.append((x, y))
        self.marks = 0.5 * self.marks + x[:2] + self.streams.normal("marks", 2, 6) + 10
        if -1 - clock.step in self.signals:
            signal.raise_signal(self.signals[-1 - clock.step])
        return {"marking": torch.tensor(self.broken.get(-1 - clock.step, float(clock.step)))}

    def extra_rows(self) -> tuple[Tensor, Tensor]:
        rows = 2 if self.preparation else 0
        return self.marks[:rows], torch.tensor([1, 2])[:rows]

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"marks": self.marks}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.marks = state["marks"]
        super().load_state(state)


def test_preparation_comes_first_and_once_and_its_rows_join_the_draws(view: ScaledView) -> None:
    walk, stages = PreparedWalk(), []
    train(walk, view, 200, 3, on_stage=lambda stage: stages.append((stage, len(walk.prepared), len(walk.clocks))))
    assert stages == [("preparation", 0, 0), ("training", 12, 0)]
    assert walk.prepared == [Clock(step, 15) for step in range(12)]
    assert walk.clocks == [Clock(step, 15) for step in range(200)]  # an epoch is one of the real rows
    own = {tuple(row.tolist()) for row in view.features}
    marked = {tuple(row.tolist()): k for row, k in zip(walk.marks, (1, 2), strict=True)}
    assert all(tuple(row.tolist()) in own for x, _ in walk.drawn_before for row in x)
    times = 0
    for x, y in walk.drawn:
        rows = [tuple(row.tolist()) for row in x]
        assert len(set(rows)) == 5
        for row, k in zip(rows, y.tolist(), strict=True):
            assert row in own or marked[row] == k
            times += row in marked
    assert 10 < times < 50  # 2 of 74 rows, 1000 drawn: 27 expected


def test_nothing_to_prepare_is_no_preparation(view: ScaledView, tmp_path: Path) -> None:
    walk = PreparedWalk(preparation=0)
    train(walk, view, 50, 3, checkpoint=tmp_path / "c", on_stage=lambda stage: pytest.fail(stage))
    assert not walk.prepared
    assert torch.equal(walk.at, trained(view).at)
    assert "prepared" not in read_arrays(tmp_path / "c")[1]


def test_progress_of_a_preparation_counts_its_own_steps(view: ScaledView) -> None:
    told: list[Progress] = []
    train(PreparedWalk(), view, 20, 3, on_progress=told.append)
    assert [(p.step, p.steps, list(p.losses)) for p in told] == [
        (10, 12, ["marking"]),
        (12, 12, ["marking"]),
        (10, 20, ["step", "late"]),
        (20, 20, ["step", "late"]),
    ]


@pytest.mark.parametrize("at", [-1, -5, -12, 0, 9, 48])
def test_a_signal_during_either_stage_changes_nothing_but_the_time(view: ScaledView, tmp_path: Path, at: int) -> None:
    """−1 − k is step k of the preparation, −12 its last."""
    whole = PreparedWalk()
    train(whole, view, 50, 3)
    checkpoint = tmp_path / "checkpoint.safetensors"
    where = f"step {-at} of 12 of the preparation" if at < 0 else f"step {at + 1} of 50"
    with pytest.raises(Stopped, match=f"saved up to {where}$"):
        train(PreparedWalk(signals={at: signal.SIGTERM}), view, 50, 3, checkpoint=checkpoint)
    walk, stages = PreparedWalk(), []
    train(walk, view, 50, 3, checkpoint=checkpoint, on_stage=stages.append)
    assert stages == (["preparation", "training"] if -12 < at < 0 else [])
    assert len(walk.prepared) == (12 + at if at < 0 else 0)
    assert torch.equal(walk.marks, whole.marks)
    assert torch.equal(walk.at, whole.at)


@pytest.mark.parametrize("killed_at", [(0, 3), (0, 12), (7, 12)])
def test_killed_anywhere_it_goes_on_from_the_last_checkpoint_bit_for_bit(
    view: ScaledView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: tuple[int, int]
) -> None:
    class Killed(Exception):
        pass

    class Mortal(PreparedWalk):
        def state(self) -> dict[str, Tensor]:
            if (len(self.clocks), len(self.prepared)) == killed_at:
                raise Killed
            return super().state()

    whole, checkpoint = PreparedWalk(), tmp_path / "checkpoint.safetensors"
    train(whole, view, 50, 3)
    monkeypatch.setattr(unseen.training, "LOOK_EVERY", 1)  # so that every step is saved
    with pytest.raises(Killed):
        train(Mortal(), view, 50, 3, checkpoint=checkpoint, checkpoint_seconds=0)
    found = read_arrays(checkpoint)[1]
    assert (found["step"], found["prepared"]) == (
        (str(killed_at[0] - 1), "12") if killed_at[0] else ("0", str(killed_at[1] - 1))
    )
    walk = PreparedWalk()
    train(walk, view, 50, 3, checkpoint=checkpoint)
    assert torch.equal(walk.marks, whole.marks)
    assert torch.equal(walk.at, whole.at)


def test_a_loss_of_the_preparation_that_is_not_finite_says_so(view: ScaledView) -> None:
    with pytest.raises(Diverged, match=r"'marking' of the loss is nan at step 4 of the preparation;"):
        train(PreparedWalk(broken={-4: float("nan")}), view, 50, 3)


def test_a_checkpoint_of_another_preparation_is_a_sentence(view: ScaledView, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(PreparedWalk(), view, 10, 3, checkpoint=checkpoint)
    for other in (11, 13, 0):
        with pytest.raises(DataError, match="does not fit these settings; train into another folder"):
            train(PreparedWalk(preparation=other), view, 20, 3, checkpoint=checkpoint)


# --- checkpoints that do not fit


def test_a_damaged_checkpoint_is_a_sentence(view: ScaledView, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(Walk(), view, 10, 3, checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for damaged in (whole[:-1], whole[:50], b"", bytes(flipped)):
        checkpoint.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{checkpoint} is damaged"):
            train(Walk(), view, 20, 3, checkpoint=checkpoint)


def test_a_checkpoint_of_another_method_is_a_sentence(view: ScaledView, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    entry = find_method("tfvaegan")
    settings = replace(entry.default(72, 6, 4)[0], hidden=8)  # type: ignore[union-attr]
    train(Walk(), view, 10, 3, checkpoint=checkpoint)
    with pytest.raises(DataError, match="does not fit these settings; train into another folder"):
        train(entry.build(view, settings, 0), view, 20, 3, checkpoint=checkpoint)  # type: ignore[union-attr]
    arrays, metadata = read_arrays(checkpoint)
    write_arrays(checkpoint, dict(arrays), {key: value for key, value in metadata.items() if key != "step"})
    with pytest.raises(DataError, match="does not fit these settings"):
        train(Walk(), view, 20, 3, checkpoint=checkpoint)
