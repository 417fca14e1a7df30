"""From outcomes to a page: what the report shows, gathered from what the evaluation found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unseen.data.dataset import Dataset
from unseen.evaluation.by_class import confusion, per_class
from unseen.evaluation.protocol import Outcome
from unseen.report.contents import Confusion, Curve, Gallery, Page, PictureGuess
from unseen.report.page import render
from unseen.report.projection import plane_of
from unseen.storage import write_text

PICTURES_SHOWN = 60
SEEN_EXAMPLES = 24


def write_report(
    path: Path, dataset: Dataset, outcomes: list[Outcome], rows: list[dict[str, Any]], command: str, verdict: str | None = None
) -> Path:
    """Write the page of some outcomes on one split; the last one is shown in most detail.

    Args:
        path: the HTML file.
        rows: result rows of the table; those of the outcomes and perhaps an oracle's.
        command: what made them.
        verdict: one sentence for the top; by default one is made from the last outcome's row.

    Returns:
        `path`.

    Raises:
        MissingDependency: the extra `unseen[report]` is not installed.
    """
    write_text(path, render(page_of(dataset, outcomes, rows, command, verdict)))
    return path


def page_of(
    dataset: Dataset, outcomes: list[Outcome], rows: list[dict[str, Any]], command: str, verdict: str | None = None
) -> Page:
    """The contents of the page."""
    main = outcomes[-1]
    row = main.row
    split = dataset.split(row["split"])
    table = dataset.class_table(split.name)
    unseen = main.predictor.unseen
    return Page(
        title=f"{dataset.name}: {len(unseen)} classes that training had no example of",
        command=command,
        verdict=verdict or _sentence(row),
        dataset=dataset.name,
        split=split.name,
        seen_names=tuple(table.names[i] for i in main.predictor.seen),
        unseen=tuple((table.names[i], table.descriptions[i] if table.descriptions else "") for i in unseen),
        counts={"train": len(split.train), "test_seen": len(split.test_seen), "test_unseen": len(split.test_unseen)},
        results=tuple({**r, "oracle": bool(r.get("test_used_for_training"))} for r in rows),
        curves=tuple(
            Curve(o.row["method"], o.curve.seen, o.curve.unseen, o.row["AUSUC"], (o.row["S"], o.row["U"])) for o in outcomes
        ),
        projection=plane_of(main),
        confusion=_confusion(main, table.names),
        gallery=_gallery(dataset, outcomes, table.names),
        per_class=per_class(outcomes),
        provenance=vars(dataset.provenance),
        attributions=dataset.attributions,
        versions=row["versions"],
    )


def _sentence(row: dict[str, Any]) -> str:
    figures = ", ".join(f"{key} {100 * row[key]:.1f}" for key in ("T1", "U", "S", "H", "AUSUC"))
    seen = "; transductive: training saw the unseen test rows, without labels" if row.get("transductive") else ""
    chosen = {"paper": ", chosen on the test rows as published", "blind": ", chosen without test rows"}.get(row["protocol"], "")
    return f"{row['method']} on {row['dataset']}, split {row['split']} (percent): {figures}{chosen}{seen}."


def _confusion(outcome: Outcome, names: tuple[str, ...]) -> Confusion:
    seen, unseen = outcome.predictor.seen, outcome.predictor.unseen
    predicted = outcome.decisions[1].predict(outcome.gamma)
    counts, nearest = confusion(predicted, outcome.test.unseen_labels, seen, unseen)
    nearest_names = tuple("" if class_id is None else names[class_id] for class_id in nearest)
    return Confusion(outcome.row["method"], counts, tuple(names[i] for i in unseen), nearest_names)


def _gallery(dataset: Dataset, outcomes: list[Outcome], names: tuple[str, ...]) -> Gallery | None:
    pictures = dataset.pictures
    if pictures is None:
        return None
    test = outcomes[-1].test
    predictions = [(o.row["method"], o.decisions[1].predict(o.gamma), set(o.predictor.seen.tolist())) for o in outcomes]
    guesses = [
        PictureGuess(
            tile=pictures.place[int(row)],
            truth=names[truth],
            guesses=tuple(
                (method, names[predicted[position]], bool(predicted[position] == truth), int(predicted[position]) in seen)
                for method, predicted, seen in predictions
            ),
        )
        for position, (row, truth) in enumerate(zip(test.unseen_rows, test.unseen_labels, strict=True))
        if int(row) in pictures.place
    ]
    # every n-th, so that all unseen classes are shown rather than the first few
    shown = guesses[:: max(1, -(-len(guesses) // PICTURES_SHOWN))]
    split = dataset.split(outcomes[-1].row["split"])
    examples: dict[str, tuple[int, int]] = {}
    for row in (*split.train, *split.test_seen):
        if int(row) in pictures.place:
            examples.setdefault(dataset.classes.names[dataset.labels[row]], pictures.place[int(row)])
    step = max(1, len(examples) // SEEN_EXAMPLES)
    seen_examples = tuple((tile, name) for name, tile in list(examples.items())[::step][:SEEN_EXAMPLES])
    return Gallery(pictures.sheet, pictures.media_type, pictures.tile, tuple(shown), seen_examples)
