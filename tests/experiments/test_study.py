"""Trials in a journal: drawn by the seed, kept through every way of dying."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from unseen.errors import DataError, RunError
from unseen.experiments.study import Study
from unseen.methods.base import Choices, Floats, Ints

SEARCH = {"x": Floats(0.0, 1.0), "lr": Floats(1e-5, 1e-1, log=True), "n": Ints(1, 5), "on": Choices((True, False))}
START = {"x": 0.5, "lr": 1e-3, "n": 1, "on": False}


def search(journal: Path, up_to: int, seed: int = 0, names: tuple[str, ...] = tuple(SEARCH)) -> Study:
    """One trial after the other, for a high x."""
    study = Study(journal, {name: SEARCH[name] for name in names}, seed)
    left = study.take_up()
    study.begin_with({name: START[name] for name in names})
    while study.counted < up_to:
        drawn = left.pop(0) if left else study.draw()
        study.tell(drawn.number, drawn.values["x"])
    return study


def found(study: Study) -> list[tuple[dict[str, Any], float | None]]:
    """What was drawn and what came of it, whatever the numbers."""
    return [(dict(drawn.values), drawn.objective) for drawn in study.ended()]


def test_it_begins_where_it_is_told_to_and_stays_inside(tmp_path: Path) -> None:
    values = [drawn.values for drawn in search(tmp_path / "j", 25).ended()]
    assert values[0] == START
    assert all(value in SEARCH[name] for drawn in values for name, value in drawn.items())
    assert all(type(drawn["n"]) is int and type(drawn["on"]) is bool for drawn in values)
    assert len({drawn["n"] for drawn in values}) > 2
    assert min(drawn["lr"] for drawn in values) < 1e-3 < 1e-2 < max(drawn["lr"] for drawn in values)


def test_it_goes_where_the_objective_is_high(tmp_path: Path) -> None:
    last = search(tmp_path / "j", 40).ended()[-15:]
    assert sum(drawn.values["x"] for drawn in last) / len(last) > 0.7


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    one, same, other = (search(tmp_path / name, 14, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert found(one) == found(same)
    assert found(one)[0] == found(other)[0]
    assert all(a != b for a, b in zip(found(one)[1:], found(other)[1:], strict=True))


class Killed(BaseException):
    """Nothing that this would have done afterwards is done."""


@pytest.mark.parametrize("half", [False, True], ids=["between lines", "in a line"])
def test_killed_at_any_write_it_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """The first ten trials are random, so those after them are killed too. Optuna's lock is held at that moment."""
    append = JournalFileBackend.append_logs

    def killing(left: int) -> Callable[..., None]:
        def append_logs(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                return append(backend, logs)
            if half:
                with (tmp_path / "journal").open("ab") as file:
                    file.write(b'{"op_code":6,"worker')
            (tmp_path / "journal.lock").touch()
            raise Killed

        return append_logs

    def carry_on() -> list[tuple[dict[str, Any], float | None]]:
        return found(search(tmp_path / "journal", killed_after + 2, names=("x", "n")))

    for killed_after in (0, 10):
        if killed_after:
            search(tmp_path / "journal", killed_after, names=("x", "n"))
        base, writes = (tmp_path / "journal").read_bytes() if killed_after else b"", 0

        def counting(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            nonlocal writes
            writes += 1
            append(backend, logs)

        monkeypatch.setattr(JournalFileBackend, "append_logs", counting)
        whole = carry_on()
        assert writes >= 8  # begun, two values and what came of them
        for n in range(writes):
            (tmp_path / "journal").write_bytes(base)
            monkeypatch.setattr(JournalFileBackend, "append_logs", killing(n))
            with pytest.raises(Killed):
                carry_on()
            monkeypatch.setattr(JournalFileBackend, "append_logs", append)
            assert carry_on() == whole, n
        (tmp_path / "journal").unlink()


def test_trials_under_way_are_taken_up_with_their_values(tmp_path: Path) -> None:
    study = Study(tmp_path / "j", SEARCH, 0)
    drawn = [study.draw() for _ in range(3)]
    study.tell(drawn[1].number, 0.5)
    again = Study(tmp_path / "j", SEARCH, 0)
    assert again.take_up() == [drawn[0], drawn[2]]
    assert again.counted == 1
    again.tell(drawn[2].number, 0.25)
    assert [trial.objective for trial in again.ended()] == [0.5, 0.25]
    assert Study(tmp_path / "j", SEARCH, 0).take_up() == [drawn[0]]


def test_trials_drawn_side_by_side_differ(tmp_path: Path) -> None:
    study = search(tmp_path / "j", 12)
    values = [study.draw().values["x"] for _ in range(4)]
    assert len(set(values)) == 4


def test_a_bad_trial_counts_and_is_shunned_and_a_lost_one_is_neither(tmp_path: Path) -> None:
    bad = {}
    for told in ("tell_bad", "tell_lost"):
        study = Study(tmp_path / told, SEARCH, 0)
        for _ in range(40):
            drawn = study.draw()
            if drawn.values["x"] > 0.5:
                getattr(study, told)(drawn.number)
            else:
                study.tell(drawn.number, drawn.values["n"] / 5)
        bad[told] = [drawn.objective is None for drawn in study.ended()]
        assert len(bad[told]) == 40
        assert study.counted == (40 if told == "tell_bad" else 40 - sum(bad[told]))
    assert sum(bad["tell_bad"][-20:]) < sum(bad["tell_lost"][-20:])


def test_the_same_values_are_not_begun_with_twice_unless_they_were_lost(tmp_path: Path) -> None:
    study = Study(tmp_path / "j", SEARCH, 0)
    study.begin_with(START)
    study.begin_with(START)
    drawn = study.draw()
    study.begin_with(START)
    assert study.draw().values != START
    study.tell_lost(drawn.number)
    study.begin_with(START)
    assert study.draw().values == START


def test_a_damaged_journal_is_one_sentence(tmp_path: Path) -> None:
    search(tmp_path / "whole", 2)
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for damage in (
        b"{\n",
        b"5\n",
        b"{}\n",
        b"\xff\n",
        b'{"op_code": 0, "study_name": []}\n',
        b'{"op_code": 6, "trial_id": 0}\n',
    ):
        (tmp_path / "j").write_bytes(b"".join([*lines[:9], damage, *lines[9:]]))
        with pytest.raises(DataError, match=r"j is damaged .*; choose another folder") as refusal:
            search(tmp_path / "j", 3)
        assert "\n" not in str(refusal.value)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path / "j", SEARCH, 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        study.draw()


def test_optuna_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(tmp_path / "j", 12)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before
