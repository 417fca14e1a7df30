"""Splits of one's own data: which classes are unseen, and which rows of the seen ones are held out.

What falls where depends on the names of the classes, on what identifies each row, and on the seed; not on the order of the
rows or of the class table. So a table sorted otherwise gives the same pictures the same parts.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unseen.data.dataset import ClassTable, Floats, Ids, Split
from unseen.errors import DataError, SettingsError
from unseen.evaluation.folds import deal, stratified_rows
from unseen.storage import read_lines

KINDS = ("random", "groups", "list", "rollout")
TEST_SHARE = 0.2
"""Of the rows of each seen class, so many are held out as test_seen: one at least where there are two."""
STAGES = 3


def joined_name(name: str) -> str:
    """A name as labels and class names are joined by it: Unicode NFC, blanks at its ends off; case counts."""
    return unicodedata.normalize("NFC", name).strip()


def row_keys(features: Floats, paths: Sequence[str]) -> tuple[str, ...]:
    """What identifies each row wherever it stands: its path; without paths or with one twice, the SHA-256 of its features."""
    if paths and len(set(paths)) == len(paths):
        return tuple(paths)
    return tuple(hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in features)


def make_splits(
    labels: Ids,
    classes: ClassTable,
    keys: Sequence[str],
    kind: str,
    unseen: Sequence[str],
    seed: int,
    *,
    test_share: float = TEST_SHARE,
    draws: int = 1,
    stages: int = STAGES,
) -> dict[str, Split]:
    """Cut splits of one kind.

    Classes without a row can only be unseen, and are in every split; a share or a number counts the others alone.

    * `random`: unseen classes are drawn; `random0`, and with more draws `random1`, … which hold out different classes as far
      as there are enough.
    * `groups`: whole groups are drawn, as near to the number of classes wanted as they come; `groups0`, …. A group that has a
      class without a row is unseen in all of them.
    * `list`: the classes named are unseen; one split, `list`.
    * `rollout`: these classes arrive later, in stages. `rollout0` has the first stage's classes unseen, `rollout1` those of the
      first two, and so on to all of them; training and test_seen rows are the same in each, so one trained model meets all.
      Classes of later stages are in neither part. Names arrive in the order they are given in; where a share or a number is
      given they are drawn. Classes without a row arrive last.

    Args:
        labels: (n,) ids into `classes`.
        keys: n, see `row_keys`.
        unseen: a share ("20%", "0.2"), a number of classes ("16"), or names or files of names, one a line.
        test_share: of the rows of each seen class; 0 holds none out.
        draws: of `random` and `groups`.
        stages: of `rollout`.

    Raises:
        SettingsError: an argument cannot be understood or cannot work.
        DataError: there are too few classes, or a name is of no class.
    """
    _check_settings(kind, unseen, test_share, draws, stages, seed)
    if kind == "groups":
        _check_groups(classes)
    order = np.array(sorted(range(len(classes)), key=lambda i: joined_name(classes.names[i])), np.int64)
    rank = np.argsort(order)
    rows = np.array(sorted(range(len(labels)), key=lambda row: (rank[labels[row]], keys[row])), np.int64)
    cut = _Cut(order, rank[labels][rows], rows, seed, test_share)
    wanted = _wanted(unseen, len(cut.with_rows))
    if wanted == 0 and kind != "list" and not len(cut.without_rows):
        raise SettingsError("no class would be unseen; ask for at least one with --unseen, for example 20%")
    if wanted is not None and kind in ("random", "groups"):
        group_of = np.array([classes.groups[i] for i in order]) if kind == "groups" else np.arange(len(order))
        return cut.drawn(kind, wanted, draws, group_of)
    if wanted is None or kind == "list":
        named = rank[_named(unseen, classes)]
    else:
        named = np.random.default_rng(seed).permutation(cut.with_rows)[:wanted]
    late = np.concatenate([named[np.isin(named, cut.with_rows)], cut.without_rows])  # those without a row come last
    if kind == "list":
        return {"list": cut.split("list", late, cut.held_out(late))}
    if len(late) < stages:
        raise SettingsError(f"{len(late)} classes cannot arrive in {stages} stages; name more classes or use fewer stages")
    test_seen = cut.held_out(late)
    arrived = np.cumsum([len(part) for part in np.array_split(late, stages)])
    named_splits = {f"rollout{stage}": (late[:count], late[count:]) for stage, count in enumerate(arrived)}
    return {name: cut.split(name, here, test_seen, later) for name, (here, later) in named_splits.items()}


class _Cut:
    """Cuts in the order of sorted names and keys; what it returns is in the data set's own numbers."""

    def __init__(self, order: Ids, labels: Ids, rows: Ids, seed: int, test_share: float) -> None:
        self.order, self.labels, self.rows = order, labels, rows
        self.seed, self.test_share = seed, test_share
        self.with_rows = np.unique(labels)
        self.without_rows = np.setdiff1d(np.arange(len(order)), self.with_rows)

    def drawn(self, name: str, wanted: int, draws: int, group_of: NDArray[np.generic]) -> dict[str, Split]:
        """`name`0, `name`1, …, each with about `wanted` classes that have rows, and all that have none."""
        forced = np.intersect1d(self.with_rows, np.flatnonzero(np.isin(group_of, group_of[self.without_rows])))
        free = np.setdiff1d(self.with_rows, forced)
        left = max(0, wanted - len(forced))
        if len(free) - left < 2:
            raise DataError(
                f"{len(self.with_rows)} classes have rows, of which {max(wanted, len(forced))} would be unseen; "
                "at least two have to stay seen, so hold out fewer"
            )
        always = np.concatenate([forced, self.without_rows])
        if not left:  # then there is nothing to draw but the rows of test_seen
            return {f"{name}0": self.split(f"{name}0", always, self.held_out(always), by_group=name == "groups")}
        splits: dict[str, Split] = {}
        positions = np.flatnonzero(np.isin(self.labels, free))
        generator = np.random.default_rng(self.seed)
        for dealt in deal(
            self.labels[positions], free, group_of[free], generator, count=draws, wanted=left, share=self.test_share
        ):
            if not len(dealt.classes):
                raise DataError("every group is too large to hold out whole and leave two classes seen; use --split random")
            unseen, key = np.concatenate([dealt.classes, always]), f"{name}{len(splits)}"
            splits[key] = self.split(key, unseen, positions[dealt.seen_rows], by_group=name == "groups")
        return splits

    def held_out(self, unseen: Ids) -> Ids:
        """Positions of the rows of test_seen."""
        seen = np.setdiff1d(self.with_rows, unseen)
        if len(seen) < 2:
            raise DataError(f"{len(seen)} classes with rows would stay seen, and at least two have to; name fewer unseen ones")
        return stratified_rows(self.labels, seen, np.random.default_rng(self.seed), self.test_share)

    def split(self, name: str, unseen: Ids, test_seen: Ids, later: Ids | None = None, by_group: bool = False) -> Split:
        """From positions and ranks to a split in the data set's rows and ids, each list sorted."""
        absent = unseen if later is None else np.concatenate([unseen, later])
        test_unseen = np.flatnonzero(np.isin(self.labels, unseen))
        train = np.setdiff1d(np.flatnonzero(~np.isin(self.labels, absent)), test_seen)
        seen = np.setdiff1d(self.with_rows, absent)
        return Split(
            name=name,
            train=np.sort(self.rows[train]),
            test_seen=np.sort(self.rows[test_seen]),
            test_unseen=np.sort(self.rows[test_unseen]),
            seen=np.sort(self.order[seen]),
            unseen=np.sort(self.order[unseen]),
            by_group=by_group,
        )


def _check_settings(kind: str, unseen: Sequence[str], test_share: float, draws: int, stages: int, seed: int) -> None:
    if kind not in KINDS:
        raise SettingsError(f"there is no kind of split '{kind[:40]}'; there are {', '.join(KINDS)}")
    if not 0 <= test_share < 1:
        raise SettingsError(f"a share of {test_share} of the rows cannot be held out; give a number from 0 to below 1")
    if seed < 0:
        raise SettingsError(f"seed {seed} is negative; give a whole number from 0")
    if draws < 1 or stages < 1:
        raise SettingsError("there is at least one draw and one stage; give a number from 1")
    if draws != 1 and kind in ("list", "rollout"):
        raise SettingsError(f"--draws is for random and groups; leave it out with --split {kind}")
    if stages != STAGES and kind != "rollout":
        raise SettingsError(f"--stages is for rollout; leave it out with --split {kind}")
    if kind in ("random", "groups") and _wanted(unseen, count=1) is None:
        text = " ".join(unseen)[:60]
        if re.fullmatch(r"\s*-[\d.]+\s*%?\s*", text):
            raise SettingsError(f"--unseen {text!r} is below 0; give a share such as 20% or a number of classes")
        if re.fullmatch(r"\s*[\d.]+\s*%?\s*", text):
            raise SettingsError(
                f"--unseen {text!r} leaves no class seen; give a share below 100%, such as 20%, or a whole number of classes"
            )
        raise SettingsError(
            f"--unseen {text!r} is neither a share such as 20% nor a number of classes; "
            "to name the unseen classes use --split list"
        )
    if kind == "list" and not unseen:
        raise SettingsError("no class is named; name the unseen ones, or give a file with one name a line")


def _check_groups(classes: ClassTable) -> None:
    if not any(group.strip() for group in classes.groups):
        raise DataError(
            "the classes have no groups, so none can be held out whole; add a column 'group', or use --split random"
        )
    for name, group in zip(classes.names, classes.groups, strict=True):
        if not group.strip():
            raise DataError(f"class {name!r} has no group; give it one, if need be of its own")


def _wanted(unseen: Sequence[str], count: int) -> int | None:
    """How many of `count` classes were asked for, by a share below 1 or a number; None where it is neither."""
    if len(unseen) != 1 or not (found := re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(%?)\s*", unseen[0])):
        return None
    if not found[2] and "." not in found[1]:
        return int(found[1])
    share = float(found[1]) / (100 if found[2] else 1)
    if share >= 1:
        return None
    return max(1 if share > 0 else 0, math.floor(share * count + 0.5))


def _named(unseen: Sequence[str], classes: ClassTable) -> Ids:
    """Ids of the classes named, in order, each once."""
    where = {joined_name(name): position for position, name in enumerate(classes.names)}
    found: dict[int, None] = {}
    for text in unseen:
        for name in _names_of(text, where):
            if joined_name(name) not in where:
                alike = written_otherwise(name, where)
                what_to_do = f"write it {alike!r}" if alike else "check how it is written"
                nor_file = ", and there is no such file" if name == text and not alike else ""
                raise DataError(f"unseen class {name[:60]!r} is not among the {len(classes)} classes{nor_file}; {what_to_do}")
            found[where[joined_name(name)]] = None
    return np.array(list(found), np.int64)


def _names_of(text: str, where: Mapping[str, int]) -> list[str]:
    """A name, else the lines of a file of that path, else names with commas between them."""
    if joined_name(text) in where:
        return [text]
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # no name of a file
        is_file = False
    return read_lines(Path(text)) if is_file else [name for name in text.split(",") if name.strip()]


def written_otherwise(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names differs from this one in case, blanks, hyphens or underscores only."""

    def loosely(text: str) -> str:
        return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())

    return next((other for other in known if loosely(other) == loosely(name)), None)
