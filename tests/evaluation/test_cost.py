"""Seconds and memory, counted across interruptions."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from unseen.evaluation import cost
from unseen.evaluation.cost import KEEP_EVERY, Meter, peak_memory
from unseen.storage import write_json


class Clock:
    """Time as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(cost.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_phase_has_its_own_count(clock: Clock) -> None:
    meter = Meter()
    for phase, seconds in (("selection", 3.0), ("training", 5.0), ("training", 0.5)):
        with meter.phase(phase):
            clock.now += seconds
        clock.now += 1000  # belongs to none
    assert meter.seconds == {"selection": 3.0, "training": 5.5}


def test_a_second_process_goes_on_counting(clock: Clock, tmp_path: Path) -> None:
    first = Meter(tmp_path / "cost.json")
    with contextlib.suppress(KeyboardInterrupt), first.phase("training"):
        clock.now += 7
        raise KeyboardInterrupt
    second = Meter(tmp_path / "cost.json")
    with second.phase("training"):
        clock.now += 4
    assert second.seconds == {"training": 11.0}


def test_a_killed_process_loses_what_it_did_since_the_last_tick(clock: Clock, tmp_path: Path) -> None:
    killed = Meter(tmp_path / "cost.json")
    phase = killed.phase("training")
    phase.__enter__()
    for _ in range(5):
        clock.now += KEEP_EVERY / 2
        killed.tick()
    assert Meter(tmp_path / "cost.json").seconds == {"training": 1.5 * KEEP_EVERY}
    assert killed.seconds == {"training": 1.5 * KEEP_EVERY}


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": 3, "peak_memory": 1}', '{"seconds": {"a": "b"}, "peak_memory": 1}'])
def test_a_damaged_count_begins_at_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "cost.json").write_text(text)
    assert Meter(tmp_path / "cost.json").seconds == {}


def test_memory_is_what_the_process_held_at_most(tmp_path: Path) -> None:
    before = peak_memory()
    block = np.ones(before + 2**26, np.uint8)
    grown = peak_memory()
    assert before + 2**26 <= grown < 3 * before + 2**27
    del block
    assert peak_memory() == grown
    write_json(tmp_path / "cost.json", {"seconds": {}, "peak_memory": 2 * grown})
    assert Meter(tmp_path / "cost.json").peak_memory == 2 * grown
