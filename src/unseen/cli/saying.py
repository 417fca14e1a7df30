"""What is said on standard error, beside the results: notes, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from unseen.evaluation.protocol import Watch
    from unseen.extraction import Speed
    from unseen.training import Progress

LINE_SECONDS = 30.0
"""Where standard error is a file, a line of progress is written this often."""

messages = Console(stderr=True)


def say(text: str, style: str) -> None:
    """A line on standard error, as long as it is; names in it may be a stranger's."""
    messages.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def watching(label: str = "") -> Iterator[Watch]:
    """Progress on standard error: phase, steps, losses, speed and time left."""
    from unseen.evaluation.protocol import Watch

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[losses]}"),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    prefix = f"{label}: " if label else ""
    with bar:
        line = bar.add_task(prefix, total=None, speed="", losses="")

        def on_phase(phase: str) -> None:
            nonlocal line
            bar.remove_task(line)  # a reset would keep the last phase's number of steps
            line = bar.add_task(prefix + phase, total=None, speed="", losses="")
            if not messages.is_terminal:
                messages.print(prefix + phase, highlight=False)

        last_line = time.monotonic()

        def on_progress(progress: Progress) -> None:
            nonlocal last_line
            speed = f"{progress.steps_per_second:.1f} steps/s, {progress.seconds_left:.0f} s left"
            losses = "  ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
            bar.update(line, completed=progress.step, total=progress.steps, speed=speed, losses=losses)
            if not messages.is_terminal and time.monotonic() - last_line >= LINE_SECONDS:
                last_line = time.monotonic()
                say(f"{prefix}step {progress.step} of {progress.steps}, {speed}; {losses}", "")

        yield Watch(None, on_phase, on_progress)


@contextmanager
def counting_pictures() -> Iterator[Callable[[Speed], None]]:
    """Progress on standard error: pictures done, pictures a second, time left."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with bar:
        line = bar.add_task("pictures", total=None, speed="")
        last_line = time.monotonic()

        def tell(speed: Speed) -> None:
            nonlocal last_line
            told = f"{speed.per_second:.1f} pictures/s, {_duration(speed.seconds_left)} left"
            bar.update(line, completed=speed.done, total=speed.pictures, speed=told)
            over = speed.done == speed.pictures
            if not messages.is_terminal and (over or time.monotonic() - last_line >= LINE_SECONDS):
                last_line = time.monotonic()
                say(f"{speed.done} of {speed.pictures} pictures, {told}", "")

        yield tell


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error: how many of how many, and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        line = bar.add_task(what, total=None)
        last_line = time.monotonic()

        def watch(done: int, total: int) -> None:
            nonlocal last_line
            bar.update(line, completed=done, total=total)
            if not messages.is_terminal and time.monotonic() - last_line >= LINE_SECONDS:
                last_line = time.monotonic()
                say(f"{done} of {total} {what}", "")

        yield watch
