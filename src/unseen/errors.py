"""What a user sees when something is wrong: one sentence with the cause, the place and the next step.

The command line prints the sentence and exits with 1; a library user catches `UnseenError`.
"""

from __future__ import annotations

from collections.abc import Sequence


class UnseenError(Exception):
    """Every error that `unseen` raises on purpose."""


class DataError(UnseenError):
    """The data given is damaged, inconsistent, or not what it says it is."""


class InputError(DataError, ValueError, TypeError):
    """What was given cannot be learned from or classified; also what scikit-learn expects to be raised then."""


class TooLarge(InputError):
    """Rows of finite numbers that are so large that their scores are none.

    Args:
        rows: their numbers, counted from 0, among those that were given; one or more, and not necessarily all.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(rows)
        self.rows = rows

    def __str__(self) -> str:
        return f"row {self.rows[0]} is too large to be scored; check how it was made"


class SettingsError(UnseenError):
    """A name or a value that the user chose does not exist or cannot work."""


class RunError(UnseenError):
    """A run folder cannot be written, resumed or read, or a training went wrong."""


class Diverged(RunError):
    """A loss of a training is not finite."""


class Stopped(RunError):
    """Ctrl-C or SIGTERM stopped a training after a whole step; what was done is saved where a checkpoint was asked for."""


class MissingDependency(UnseenError):
    """A part was asked for whose optional packages are not installed."""
