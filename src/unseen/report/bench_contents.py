"""What the page of a bench is made of: plain data, no HTML. `unseen.report.bench_assemble` gathers it from a bench folder.

Accuracies are fractions from 0 to 1 everywhere; the page shows them in percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unseen.experiments.aggregate import Looks, Paired, Ranks, Summary
from unseen.experiments.literature import LiteratureRow
from unseen.report.contents import Confusion, Curve, Numbers, Projection


@dataclass(frozen=True)
class Run:
    """One finished task.

    Args:
        id: of the task.
        file: the row's, relative to the bench folder.
        row: its result row, which says how every figure in it came about.
        source: the data set as it was named.
        command: what made it.
    """

    id: str
    file: str
    row: Mapping[str, object]
    source: str
    command: str


@dataclass(frozen=True)
class Line:
    """One line of the page's tables: a method, or a variant of it, under one protocol on one data set.

    Args:
        summary: its figures, averaged over its runs.
        dataset: as the page calls it: its name, and where two have the same one, something to tell them apart.
        transductive: whether training saw unlabelled test rows.
        unseen_embeddings: whether training used the embeddings of unseen classes.
        settings_from: where its settings come from, each said once.
        best: the figures that are the highest among comparable lines. A line that is transductive, or was chosen on test rows
            or on the folds of another split of the same data, has none.
        missing: "" or what of the bench the line does not cover, in words.
        runs: positions in `Bench.runs`.
    """

    summary: Summary
    dataset: str
    transductive: bool
    unseen_embeddings: bool
    settings_from: tuple[str, ...]
    best: frozenset[str]
    missing: str
    runs: tuple[int, ...]

    @property
    def method(self) -> str:
        """Its name."""
        return self.summary.method[0]

    @property
    def variant(self) -> str:
        """ "" for the full method, else the name of an ablation."""
        return self.summary.method[1]

    @property
    def protocol(self) -> str:
        """Under which it was measured."""
        return self.summary.protocol


@dataclass(frozen=True)
class Difference:
    """A figure of one line less that of another, on equal splits and seeds.

    Args:
        line, other: positions in `Bench.lines`.
        paired: what was found.
    """

    line: int
    other: int
    paired: Paired


@dataclass(frozen=True)
class Ablation:
    """A method and its variants on one data set, under one protocol, on the tasks that some variant has.

    Args:
        method, dataset, protocol: as they say.
        rows: the full method first where it was run: the position of its line in `Bench.lines`, and its figures on these tasks.
        differences: of the variants against the full method.
        effort: a sentence: whether all of them had the same width and steps.
    """

    method: str
    dataset: str
    protocol: str
    rows: tuple[tuple[int, Summary], ...]
    differences: tuple[Difference, ...]
    effort: str


@dataclass(frozen=True)
class Cost:
    """What a line's runs took.

    Args:
        line: position in `Bench.lines`.
        seconds_by_phase: median of each phase.
        threads, device: each said once.
    """

    line: int
    seconds_by_phase: Mapping[str, float]
    threads: tuple[str, ...]
    device: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """What others printed of the very data, split and features of some of our lines.

    Args:
        dataset, split: as the page calls them.
        results: each with the positions in `Bench.lines` of the same method.
        others: positions in `Bench.lines` of methods that nothing is published of.
    """

    dataset: str
    split: str
    results: tuple[tuple[LiteratureRow, tuple[int, ...]], ...]
    others: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A task that brought no result, and the sentence that says why."""

    task: str
    method: str
    dataset: str
    split: str
    seed: str
    protocol: str
    sentence: str


@dataclass(frozen=True)
class History:
    """The losses of a training.

    Args:
        steps: (k,) of the final training.
        losses: term → (k,) values, NaN where a step has none.
    """

    steps: Numbers
    losses: Mapping[str, Numbers]


@dataclass(frozen=True)
class Shown:
    """The figures of one run.

    Args:
        run: position in `Bench.runs`.
        method: how it is called in the figures: the method, and its protocol where several are shown.
        number: of its colour and mark, the same on the whole page.
        curve, confusion, projection, history: None where the run has none.
        synthetic_counts: synthetic rows a class → T1, U, S, H; empty where they were not measured.
        per_class: (class, whether it is unseen, test rows, accuracy).
    """

    run: int
    method: str
    number: int
    curve: Curve | None
    confusion: Confusion | None
    projection: Projection | None
    history: History | None
    synthetic_counts: tuple[tuple[int, Mapping[str, float]], ...]
    per_class: tuple[tuple[str, bool, int, float], ...]


@dataclass(frozen=True)
class View:
    """One data set and split: one run of each method, the first seed that has figures."""

    dataset: str
    split: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Bench:
    """All that the page shows; an empty part leaves its section out.

    Args:
        title: the heading.
        verdict: one sentence: what came out.
        command: what wrote this page; commands: what ran the tasks.
        warnings: sentences that must stand beside every interval, such as that splits overlap.
        notes: sentences about what is not shown: files that could not be read, published results on other data.
        runs: all finished tasks.
        lines: the leaderboard, ablations included.
        ranks: protocol → figure → the ranks.
        differences: against one baseline.
        ablations, costs, published, failures: as they say.
        looks: how often test rows were scored.
        views: what figures there are.
        unfinished: how many tasks were begun and have neither a result nor a failure.
    """

    title: str
    verdict: str
    command: str
    commands: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    lines: tuple[Line, ...]
    ranks: Mapping[str, Mapping[str, Ranks]]
    differences: tuple[Difference, ...]
    ablations: tuple[Ablation, ...]
    costs: tuple[Cost, ...]
    published: tuple[Published, ...]
    looks: tuple[Looks, ...]
    failures: tuple[Failure, ...]
    views: tuple[View, ...]
    unfinished: int
