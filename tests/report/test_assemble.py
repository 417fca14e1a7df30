"""The page's contents are the evaluation's own numbers, put where they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unseen.data import Dataset
from unseen.evaluation.oracle import oracle
from unseen.evaluation.protocol import Outcome, Task, run
from unseen.recipe import Recipe
from unseen.report import assemble, projection
from unseen.report.assemble import page_of, write_report
from unseen.report.contents import Page


@pytest.fixture(scope="module")
def world(tiny_world: Callable[..., Dataset]) -> Dataset:
    return tiny_world(seen=8, unseen=3, noise=1.0, pictures=True)


@pytest.fixture(scope="module")
def outcomes(world: Dataset, tiny_task: Callable[..., Task]) -> list[Outcome]:
    return [run(tiny_task(world, method="class-gaussian", gamma=0.2)), run(tiny_task(world, gamma=0.4))]


@pytest.fixture(scope="module")
def page(world: Dataset, outcomes: list[Outcome]) -> Page:
    main = outcomes[-1]
    rows = [*(o.row for o in outcomes), oracle(main, Recipe(**main.row["recipe"]), 0)]
    return page_of(world, outcomes, rows, "unseen train tiny")


def names_of(world: Dataset, rows: np.ndarray) -> list[str]:
    return [world.classes.names[c] for c in world.labels[rows]]


def test_classes_and_counts_are_those_of_the_split(page: Page, world: Dataset) -> None:
    split = world.split("main")
    assert page.seen_names == tuple(world.classes.names[c] for c in split.seen)
    assert [name for name, _ in page.unseen] == [world.classes.names[c] for c in split.unseen]
    assert page.counts == {
        "train": len(split.train),
        "test_seen": len(split.test_seen),
        "test_unseen": len(split.test_unseen),
    }
    assert page.provenance["feature_extractor"] == "a linear map"


def test_only_the_oracle_is_marked_as_one(page: Page, outcomes: list[Outcome]) -> None:
    assert [r["oracle"] for r in page.results] == [False, False, True]
    assert [r["H"] for r in page.results[:2]] == [o.row["H"] for o in outcomes]


def test_curves_are_the_outcomes(page: Page, outcomes: list[Outcome]) -> None:
    assert [c.method for c in page.curves] == ["class-gaussian", "tfvaegan"]
    for curve, outcome in zip(page.curves, outcomes, strict=True):
        assert curve.point == (outcome.row["S"], outcome.row["U"])
        assert curve.ausuc == outcome.row["AUSUC"]
        np.testing.assert_array_equal(curve.seen, outcome.curve.seen)
        np.testing.assert_array_equal(curve.unseen, outcome.curve.unseen)


def test_confusion_counts_every_unseen_picture_once(page: Page, world: Dataset, outcomes: list[Outcome]) -> None:
    confusion, main = page.confusion, outcomes[-1]
    assert confusion is not None
    unseen_rows = world.split("main").test_unseen
    counts = np.asarray(confusion.counts)
    assert counts.shape == (3, 4)
    true = names_of(world, unseen_rows)
    assert counts.sum(axis=1).tolist() == [true.count(name) for name in confusion.names]
    predicted = [main.view.names[c] for c in main.decisions[1].predict(main.gamma)]
    for i, name in enumerate(confusion.names):
        taken = [p for p, t in zip(predicted, true, strict=True) if t == name]
        as_unseen = [taken.count(other) for other in confusion.names]
        assert counts[i].tolist() == [*as_unseen, len(taken) - sum(as_unseen)]
        wrong = [p for p in taken if p not in confusion.names]
        assert confusion.nearest_seen[i] == "" if not wrong else confusion.nearest_seen[i] in wrong
        assert wrong.count(confusion.nearest_seen[i]) == max((wrong.count(p) for p in wrong), default=0)
    assert main.row["U"] == pytest.approx(np.mean(np.diag(counts[:, :3]) / counts.sum(axis=1)))
    assert main.row["leak_unseen_to_seen"] == pytest.approx(np.mean(counts[:, 3] / counts.sum(axis=1)))


def test_per_class_accuracies_average_to_s_and_u(page: Page, world: Dataset, outcomes: list[Outcome]) -> None:
    split = world.split("main")
    for outcome in outcomes:
        method = outcome.row["method"]
        for kind, figure in ((True, "U"), (False, "S")):
            accuracies = [a[method] for _, unseen, _, a in page.per_class if unseen is kind]
            assert np.mean(accuracies) == pytest.approx(outcome.row[figure])
    seen_names, unseen_names = (names_of(world, rows) for rows in (split.test_seen, split.test_unseen))
    for name, unseen, count, _ in page.per_class:
        assert count == (unseen_names if unseen else seen_names).count(name)
        assert unseen == (name in unseen_names)


def test_tiles_belong_to_the_right_rows(page: Page, world: Dataset, outcomes: list[Outcome]) -> None:
    gallery, pictures = page.gallery, world.pictures
    assert gallery is not None
    assert pictures is not None
    row_of = {(k % pictures.columns, k // pictures.columns): int(row) for k, row in enumerate(pictures.rows)}
    unseen_rows = world.split("main").test_unseen.tolist()
    assert len(gallery.pictures) == len(unseen_rows) == 30
    for picture in gallery.pictures:
        row = row_of[picture.tile]
        assert picture.truth == world.classes.names[world.labels[row]]
        position = unseen_rows.index(row)
        for (method, answer, right, is_seen), outcome in zip(picture.guesses, outcomes, strict=True):
            assert method == outcome.row["method"]
            assert answer == outcome.view.names[outcome.decisions[1].predict(outcome.gamma)[position]]
            assert right is (answer == picture.truth)
            assert is_seen is (answer in page.seen_names)
    shown = dict(gallery.seen_examples)
    assert len(shown) == len(gallery.seen_examples) == 8
    for tile, name in shown.items():
        assert world.classes.names[world.labels[row_of[tile]]] == name
        assert name in page.seen_names


def test_a_large_gallery_shows_every_class(world: Dataset, outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "PICTURES_SHOWN", 9)
    gallery = page_of(world, outcomes[:1], [], "").gallery
    assert gallery is not None
    assert len(gallery.pictures) <= 9
    assert {p.truth for p in gallery.pictures} == set(names_of(world, world.split("main").test_unseen))


def test_projection_labels_index_the_unseen_classes(page: Page, world: Dataset) -> None:
    plane = page.projection
    assert plane is not None
    assert plane.names == tuple(world.classes.names[c] for c in world.split("main").unseen)
    labels, synthetic = np.asarray(plane.labels), np.asarray(plane.synthetic)
    real = [plane.names[i] for i in labels[~synthetic]]
    assert sorted(real) == sorted(names_of(world, world.split("main").test_unseen))
    assert np.bincount(labels[synthetic]).tolist() == [projection.SYNTHETIC_SHOWN] * 3


def test_every_unseen_class_is_in_the_plane_however_many_rows_come_before_it(
    world: Dataset, outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows may be sorted by class, and the plane samples them itself."""
    given = []

    def listening(real: np.ndarray, labels: np.ndarray, *rest: object, **options: object) -> None:
        given.append((real, labels))

    monkeypatch.setattr(projection, "project", listening)
    main = outcomes[-1]
    test = main.test
    repeated = np.repeat(np.arange(len(test.unseen_labels)), 600)  # 18,000 rows
    many = replace(test, unseen_features=test.unseen_features[repeated], unseen_labels=test.unseen_labels[repeated])
    projection.plane_of(replace(main, test=many))
    [(real, labels)] = given
    np.testing.assert_array_equal(main.predictor.unseen[labels], many.unseen_labels)
    expected = main.predictor.scaler.rows(test.unseen_features, main.view.device).numpy()
    np.testing.assert_array_equal(real[::600], expected)


def test_a_closed_form_alone_has_no_projection(world: Dataset, outcomes: list[Outcome]) -> None:
    page = page_of(world, outcomes[:1], [outcomes[0].row], "unseen train")
    assert page.projection is None
    assert page.confusion is not None


def test_page_holds_plain_data_only(page: Page) -> None:
    def look(value: object, where: str) -> None:
        assert not isinstance(value, torch.Tensor | torch.nn.Module), where
        if is_dataclass(value):
            for field in fields(value):
                look(getattr(value, field.name), f"{where}.{field.name}")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                look(inner, f"{where}[{key!r}]")
        elif isinstance(value, tuple | list):
            for k, inner in enumerate(value):
                look(inner, f"{where}[{k}]")
        else:
            known = isinstance(value, np.ndarray | np.generic | str | bytes | bool | int | float | None)
            assert known, f"{where} is a {type(value)}"

    look(page, "page")


def test_verdict_states_the_figures_in_percent(page: Page, outcomes: list[Outcome]) -> None:
    row = outcomes[-1].row
    assert f"H {100 * row['H']:.1f}" in page.verdict
    assert "as published" not in page.verdict


def test_report_is_written_where_it_was_asked_for(world: Dataset, outcomes: list[Outcome], tmp_path: Path) -> None:
    path = write_report(tmp_path / "sub" / "page.html", world, outcomes, [o.row for o in outcomes], "cmd", "A verdict <b>.")
    assert path == tmp_path / "sub" / "page.html"
    text = path.read_text()
    assert "A verdict &lt;b&gt;." in text
    assert "class-gaussian" in text
