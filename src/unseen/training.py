"""The one training loop: batches on the device, checkpoints, resume, progress, and a clean stop.

A method that has something to prepare goes through the same loop twice, first with its steps of preparation.

Nothing in the loop waits for the device: losses are stacked there and looked at every `LOOK_EVERY` steps, when a loss that
is not finite is traced back to its step and term.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from torch import Tensor

from unseen.data.dataset import TrainingView
from unseen.errors import DataError, Diverged, SettingsError, Stopped
from unseen.methods.base import Clock, Draw, GenerativeMethod, PreparingMethod, Schedule, Streams
from unseen.recipe import Recipe
from unseen.scaling import ScaledView
from unseen.storage import read_arrays, write_arrays

LOOK_EVERY = 10
CHECKPOINT_SECONDS = 30.0

Stage = Literal["preparation", "training"]


@dataclass(frozen=True)
class Progress:
    """What a progress display is told.

    Args:
        step, steps: done and to do.
        losses: term → mean over the steps since the last time, usually `LOOK_EVERY`, that had this term.
        steps_per_second: over this process's part of the training.
    """

    step: int
    steps: int
    losses: dict[str, float]
    steps_per_second: float

    @property
    def seconds_left(self) -> float:
        return (self.steps - self.step) / max(self.steps_per_second, 1e-9)


def steps_per_epoch(view: ScaledView | TrainingView, batch_size: int) -> int:
    """ceil(n / batch): an epoch is nominal, as batches are independent draws."""
    return math.ceil(len(view.labels) / batch_size)


def training_steps(recipe: Recipe, schedule: Schedule, view: ScaledView | TrainingView) -> int:
    """The recipe's steps, or its epochs counted in steps: an epoch is one pass for each of the method's loops.

    Args:
        schedule: the method's.

    Raises SettingsError when there would be none.
    """
    steps = recipe.steps or recipe.epochs * schedule.loops * steps_per_epoch(view, schedule.batch_size)
    if steps < 1:
        raise SettingsError(
            f"steps={recipe.steps} and epochs={recipe.epochs} train nothing; give a length, for example --set steps=400"
        )
    return steps


def train(
    method: GenerativeMethod,
    view: ScaledView,
    steps: int,
    seed: int,
    *,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    snapshots: tuple[int, ...] = (),
    on_snapshot: Callable[[int], None] = lambda step: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_stage: Callable[[Stage], None] = lambda stage: None,
) -> None:
    """Prepare `method`, if it has something to prepare, and train it in place up to `steps`.

    Args:
        method: what to train; on return it is as after the last step.
        view: rows to draw from.
        steps: iterations in all, those of an interrupted run included, those of a preparation not.
        seed: of the order of rows; the method's own streams were seeded when it was built.
        checkpoint: file to save to and, if it is there, to go on from, bit for bit on the CPU.
        checkpoint_seconds: at most so much work is lost when the process dies.
        snapshots: steps after which `on_snapshot` is called.
        on_progress: called after every step that `LOOK_EVERY` divides, every snapshot and the last step, of a preparation too.
        on_stage: called when a preparation begins or goes on, and when training follows it; never without a preparation.

    Raises:
        Diverged: a loss is not finite; the sentence names the step and the term.
        Stopped: Ctrl-C or SIGTERM.
    """
    rows = Streams(seed, view.device)
    preparing = method if isinstance(method, PreparingMethod) and method.preparation else None
    preparation = preparing.preparation if preparing else 0
    at = _Position()
    if checkpoint and checkpoint.exists():
        at = _resume(method, rows, checkpoint, view.device, preparation)
    per_epoch = steps_per_epoch(view, method.batch_size)

    def loop(stage: Stage, advance: Callable[[Clock], dict[str, Tensor]], steps: int, snapshots: tuple[int, ...]) -> None:
        start = done = getattr(at, stage)
        of_stage = " of the preparation" if stage == "preparation" else ""
        pending: list[dict[str, Tensor]] = []
        begun = saved = time.monotonic()
        for step in range(start, steps):
            pending.append(advance(Clock(step, per_epoch)))
            done = step + 1
            stopping = stop_requested()  # asked once: a signal that comes later finds this step's work half kept
            if stopping or done in (steps, *snapshots) or done % LOOK_EVERY == 0:
                losses = _look(pending, done, of_stage)
                pending.clear()
                on_progress(Progress(done, steps, losses, (done - start) / max(time.monotonic() - begun, 1e-9)))
            if done in snapshots:
                on_snapshot(done)  # before the checkpoint, with which a resumed training would begin after it
            due = stopping or done == steps or time.monotonic() - saved > checkpoint_seconds
            setattr(at, stage, done)
            if checkpoint and due and not pending:
                _save(method, rows, checkpoint, at)
                saved = time.monotonic()
            if stopping:
                break
        if stop_requested():  # in the last step too, or while it was saved
            where = f"step {done} of {steps}{of_stage}"
            raise Stopped(
                f"training was stopped; it is saved up to {where}"
                if checkpoint
                else f"training was stopped at {where}, and nothing was saved"
            )

    with _stop_requested() as stop_requested:
        if preparing and at.preparation < preparation:
            on_stage("preparation")
            draw = _draws(rows["preparation rows"], view.features, view.labels, method.batch_size)
            loop("preparation", lambda clock: preparing.prepare(draw, clock), preparation, ())
            on_stage("training")
        x, y = view.features, view.labels
        if preparing:
            extra = preparing.extra_rows()
            x, y = torch.cat([x, extra[0]]), torch.cat([y, extra[1]])
        draw = _draws(rows["rows"], x, y, method.batch_size)
        loop("training", lambda clock: method.step(draw, clock), steps, snapshots)


@dataclass
class _Position:
    """Steps done of each stage."""

    preparation: int = 0
    training: int = 0


def _draws(generator: torch.Generator, x: Tensor, y: Tensor, batch_size: int) -> Draw:
    """Batches of distinct rows, each an independent draw."""
    batch = min(batch_size, len(y))

    def draw() -> tuple[Tensor, Tensor]:
        picked = torch.randperm(len(y), generator=generator, device=y.device)[:batch]
        return x[picked], y[picked]

    return draw


def _look(pending: list[dict[str, Tensor]], done: int, of_stage: str) -> dict[str, float]:
    """Mean of each term over the pending steps that have it: the one place where the device is waited for."""
    names = list(dict.fromkeys(name for log in pending for name in log))
    missing = torch.zeros_like(next(iter(pending[0].values())))
    table = torch.stack([torch.stack([log.get(name, missing).float() for name in names]) for log in pending]).cpu()
    wrong = (~torch.isfinite(table)).nonzero()
    if len(wrong):
        position, term = (int(v) for v in wrong[0])
        raise Diverged(
            f"the term '{names[term]}' of the loss is {float(table[position, term])} at step "
            f"{done - len(pending) + position + 1}{of_stage}; lower the learning rate (lr) or choose another scaling; "
            "the last checkpoint, if any, is as it was"
        )
    of_steps = [sum(name in log for log in pending) for name in names]
    return {name: total / n for name, total, n in zip(names, table.sum(dim=0).tolist(), of_steps, strict=True)}


def _save(method: GenerativeMethod, rows: Streams, path: Path, at: _Position) -> None:
    tensors = {f"method.{name}": value for name, value in method.state().items()}
    tensors |= {f"rows.{name}": value for name, value in rows.state().items()}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    prepared = {"prepared": str(at.preparation)} if at.preparation else {}
    write_arrays(path, arrays, {"step": str(at.training), **prepared}, sealed=True)


def _resume(method: GenerativeMethod, rows: Streams, path: Path, device: torch.device, preparation: int) -> _Position:
    arrays, metadata = read_arrays(path)
    tensors = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    try:
        method.load_state({n.removeprefix("method."): t for n, t in tensors.items() if n.startswith("method.")})
        rows.load_state({n.removeprefix("rows."): t for n, t in tensors.items() if n.startswith("rows.")})
        at = _Position(int(metadata.get("prepared", 0)), int(metadata["step"]))
        if at.preparation > preparation or (at.training and at.preparation < preparation):
            raise ValueError("a preparation of another length")
        return at
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"the checkpoint {path} does not fit these settings; train into another folder") from error


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop after the step in hand, so that what is saved is whole.

    A second Ctrl-C interrupts at once. Only the main thread may take signals; elsewhere nothing changes.
    """
    requested = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        requested.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
