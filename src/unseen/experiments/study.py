"""Trials as Optuna keeps them: what to try next, and what came of what was tried. No other file knows Optuna.

A journal is written by one process at a time, which whoever opens it sees to. Needs the extra `unseen[tune]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from unseen.errors import DataError, RunError
from unseen.methods.base import Floats, Ints, Range, stream_seed


@dataclass(frozen=True)
class Drawn:
    """Values that were drawn for a trial.

    Args:
        number: Optuna's.
        values: one for each setting that is searched.
        objective: what came of them; None where nothing did, or not yet.
    """

    number: int
    values: Mapping[str, Any]
    objective: float | None


class Study:
    """The trials in a journal, with the objective to be as high as possible.

    A trial that was told to be bad counts, and keeps the search away from there; one that was lost says nothing and does not
    count.

    Args:
        journal: a file, begun or gone on with.
        search: setting → what is tried.
        seed: of what is drawn. With it, a draw depends on how many were drawn before and on what has come of them, and not on
            how often the process was killed.

    Raises:
        RunError: the file cannot be written.
        DataError: it is damaged.
    """

    def __init__(self, journal: Path, search: Mapping[str, Range], seed: int) -> None:
        self._journal, self._seed = journal, seed
        self._space = {name: _distribution(tried) for name, tried in search.items()}
        with self._disk():
            _mend(journal)
            # Optuna's own lock is left behind by a process that is killed in the wrong moment. Nobody can hold it now.
            Path(f"{journal}.lock").unlink(missing_ok=True)
            backend = JournalFileBackend(str(journal), JournalFileOpenLock(str(journal)))
            try:
                with quiet():
                    self._study = optuna.create_study(
                        storage=JournalStorage(backend), study_name="tune", direction="maximize", load_if_exists=True
                    )
            except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
                raise DataError(f"{journal} is damaged ({type(error).__name__}); choose another folder") from error

    def begin_with(self, values: Mapping[str, Any]) -> None:
        """Let these values be drawn next, unless they were before."""
        with self._disk():
            tried = [trial for trial in self._trials() if trial.state != TrialState.FAIL]
            if not any(trial.state == TrialState.WAITING or trial.params == values for trial in tried):
                self._study.enqueue_trial(dict(values))

    def take_up(self) -> list[Drawn]:
        """Trials that a process left when it was killed. One that was killed while drawing left nothing of worth."""
        with self._disk():
            left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
            for trial in left:
                if not self._whole(trial):
                    self._study.tell(trial.number, state=TrialState.FAIL)
        return [_drawn(trial) for trial in left if self._whole(trial)]

    def draw(self) -> Drawn:
        """Begin a trial."""
        before = sum(self._whole(trial) for trial in self._trials())
        with self._disk(), quiet():
            # A trial under way is taken for a bad one, so that those beside it are not drawn in the same place.
            self._study.sampler = TPESampler(
                seed=stream_seed(self._seed, f"trial {before}") % 2**32, multivariate=True, constant_liar=True
            )
            number = self._study.ask(self._space).number
        return _drawn(self._trials()[number])

    def tell(self, number: int, objective: float) -> None:
        """What came of a trial."""
        with self._disk():
            self._study.tell(number, objective)

    def tell_bad(self, number: int) -> None:
        """Its values do not work."""
        with self._disk():
            self._study.tell(number, state=TrialState.PRUNED)

    def tell_lost(self, number: int) -> None:
        """Nothing is known of it."""
        with self._disk():
            self._study.tell(number, state=TrialState.FAIL)

    def ended(self) -> list[Drawn]:
        """All trials that something was told of, in the order in which they were drawn."""
        return [_drawn(trial) for trial in self._trials() if trial.state.is_finished() and self._whole(trial)]

    @property
    def counted(self) -> int:
        """Trials that ended, without those that were lost."""
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _whole(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._space.keys()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """A disk that refuses is a sentence."""
        try:
            yield
        except OSError as error:
            cause = error.strerror or error
            raise RunError(f"cannot write {self._journal}: {cause}; free some space or choose another folder") from error


def _drawn(trial: FrozenTrial) -> Drawn:
    return Drawn(trial.number, dict(trial.params), trial.value if trial.state == TrialState.COMPLETE else None)


def _distribution(tried: Range) -> BaseDistribution:
    if isinstance(tried, Floats):
        return FloatDistribution(tried.low, tried.high, log=tried.log)
    if isinstance(tried, Ints):
        return IntDistribution(tried.low, tried.high)
    return CategoricalDistribution(tried.values)


def _mend(journal: Path) -> None:
    """Cut off a last line that was not written to its end; Optuna would take the whole journal for damaged."""
    written = journal.read_bytes() if journal.exists() else b""
    whole = written.rfind(b"\n") + 1
    if whole != len(written):
        with journal.open("r+b") as file:
            file.truncate(whole)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to ourselves what Optuna says of its progress and of the age of its parts."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
