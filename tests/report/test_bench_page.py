"""The page of a bench as HTML."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_folder import hostile_bench, make_bench, write_failure
from demo_page import HOSTILE
from opened import Elements

from unseen.report import bench_page
from unseen.report.bench_assemble import contents_of, write_bench_report
from unseen.report.bench_contents import Bench
from unseen.report.bench_page import place, render_bench, word
from unseen.report.rendering import plain

SECTIONS = ["results", "comparison", "figures", "ablations", "costs", "looks", "failures", "sources", "command"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = make_bench(
        tmp_path_factory.mktemp("page") / "bench",
        methods=("eszsl", "class-gaussian", "tfvaegan"),
        datasets={"birds": (9, 3), "fish": (6, 4)},
        splits=("one", "two"),
        seeds=2,
        protocols=("blind", "paper"),
        variants={"tfvaegan": ("without feedback",)},
    )
    write_failure(folder, "dfca", "birds", "one", 0, "the loss is not finite")
    return contents_of(folder, "unseen report bench")


@pytest.fixture(scope="module")
def html(bench: Bench) -> str:
    return render_bench(bench)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return contents_of(hostile_bench(tmp_path_factory.mktemp("hostile") / "bench", HOSTILE), " ".join(HOSTILE))


def ids(html: str) -> Counter[str]:
    return Counter(attributes["id"] for _, attributes in Elements(html).elements if "id" in attributes)


def test_sections_stand_in_order_and_the_navigation_leads_to_them(html: str) -> None:
    elements = Elements(html).elements
    assert [attributes["id"] for tag, attributes in elements if tag == "section"] == SECTIONS
    navigation = html[html.index("<nav") : html.index("</nav>")]
    assert re.findall(r'href="#([\w-]+)"', navigation) == SECTIONS


def test_what_is_missing_leaves_its_section_and_link_out(bench: Bench) -> None:
    bare = replace(bench, ranks={}, differences=(), ablations=(), costs=(), looks=(), failures=(), views=())
    html = render_bench(bare)
    assert [attributes["id"] for tag, attributes in Elements(html).elements if tag == "section"] == [
        "results",
        "sources",
        "command",
    ]
    assert "plotly" not in html[: html.index("<footer>")]
    assert "Plotly.react" not in html, "a page without figures needs no plotly"


def test_every_link_leads_to_one_place_in_the_page(html: str) -> None:
    known = ids(html)
    assert set(known.values()) == {1}
    links = [attributes["href"] for tag, attributes in Elements(html).elements if tag == "a"]
    assert len(links) > 200
    assert all(link.startswith("#") and link[1:] in known for link in links)
    for _, attributes in Elements(html).elements:
        for name in ("for", "aria-describedby", "data-shown-by"):
            assert name not in attributes or attributes[name] in known


def test_page_refers_to_nothing_outside_itself(html: str) -> None:
    for tag, attributes in Elements(html).elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith(("#", "data:")), attributes
        assert tag not in ("iframe", "object", "embed", "form", "base", "img")
    styles = "".join(Elements(html).styles)
    assert "url(" not in styles
    assert "@import" not in styles


def test_every_number_of_the_leaderboard_leads_to_its_runs(bench: Bench, html: str) -> None:
    table = html[html.index('<table id="leaderboard"') : html.index("</table>", html.index('<table id="leaderboard"'))]
    found = Counter(re.findall(r'<a href="#from-(\d+)">[\d.]+</a>', table))
    expected = {
        str(k): sum(e is not None for e in line.summary.figures.values())
        for k, line in enumerate(bench.lines)
        if not line.variant
    }
    assert found == expected


def test_the_origin_of_a_line_holds_every_digit_of_its_runs(bench: Bench, html: str) -> None:
    """What all runs of a line share stands once, what is a run's own with the run."""
    for k, line in enumerate(bench.lines):
        begin = html.index(f'<div id="from-{k}"')
        origin = html[begin : html.find('<div id="from-', begin + 1)]
        parts = [dict(re.findall(r"<dt>(.*?)</dt><dd><bdi>(.*?)</bdi></dd>", part)) for part in origin.split("<dl")[1:]]
        common, own = parts[0], parts[1:] or [{}]
        assert len(own) == len(line.runs)
        for number, mine in zip(line.runs, own, strict=True):
            run = bench.runs[number]
            told = {**common, **mine}
            for key, value in run.row.items():
                if key == "selection":
                    assert "40, listed in the file" in told[key]
                elif value != "":
                    assert told[key] == plain(value).replace("&", "&amp;").replace('"', "&#34;").replace("'", "&#39;")
            assert (told["file"], told["source"], told["command"]) == (run.file, run.source, run.command)
            assert f'<tr id="run-{number}">' in origin


def test_lines_that_tests_chose_are_marked_and_never_best(bench: Bench, html: str) -> None:
    rows = re.findall(r'<tr data-protocol="(\d)".*?</tr>', html, re.DOTALL)
    assert Counter(rows) == {"0": 8, "1": 4 + 4}
    for row in re.findall(r'<tr data-protocol="1".*?</tr>', html, re.DOTALL):
        assert "chosen on the test set</span>" in row
        assert "accuracy best" not in row
    for row in re.findall(r'<tr data-protocol="0".*?</tr>', html, re.DOTALL):
        assert "chosen on the test set</span>" not in row
    assert html.count("best: </span>") == sum(len(line.best) for line in bench.lines)


def test_lines_stand_best_first_and_yardsticks_last(bench: Bench, html: str) -> None:
    table = html[html.index('<table id="leaderboard"') : html.index("</table>", html.index('<table id="leaderboard"'))]
    for part, dataset in zip(table.split('<tr class="group">')[1:], ("birds", "fish"), strict=True):
        lines = [bench.lines[int(k)] for k in dict.fromkeys(re.findall(r"#from-(\d+)", part))]
        assert {line.dataset for line in lines} == {dataset}
        kinds = [(line.summary.oracle, line.protocol) for line in lines]
        assert kinds == [(False, "blind")] * 3 + [(False, "paper")] * 3 + [(True, "blind"), (True, "paper")]
        means = [e.mean for line in lines[:3] if (e := line.summary.figures["H"]) is not None]
        assert means == sorted(means, reverse=True)


def test_warnings_stand_at_every_table_with_intervals(bench: Bench) -> None:
    html = render_bench(replace(bench, warnings=("Splits overlap, beware.",)))
    for section in ("results", "comparison", "ablations"):
        begin = html.index(f'<section id="{section}">')
        assert "Splits overlap, beware." in html[begin : html.index("</section>", begin)]


def test_ablations_carry_no_star(html: str) -> None:
    begin = html.index('<section id="ablations">')
    assert "best: " not in html[begin : html.index("</section>", begin)]


def test_figures_without_room_are_left_out_and_named_second_splits_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [bench_page._panel("x", view)[1] for view in bench.views]
    monkeypatch.setattr(bench_page, "MOST_FIGURE_BYTES", sizes[0] + sizes[2] + 100)
    html = render_bench(bench)
    assert re.findall(r'data-value="(view-\d+)"', html) == ["view-0", "view-2"]
    left_out = html[html.index('<p class="quiet" id="left-out">') :].split("</p>")[0]
    assert re.findall(r"<bdi>(.*?)</bdi>", left_out) == ["birds", "two", "fish", "two"]


def test_hostile_names_change_no_element(hostile: Bench) -> None:
    """The same page with harmless names has exactly the same elements."""
    dangerous = sorted(HOSTILE, key=len, reverse=True)

    def tame(value: Any) -> Any:
        if isinstance(value, str):
            for k, name in enumerate(dangerous):
                value = value.replace(name, f"name {k}")
            return value
        if isinstance(value, tuple | list | frozenset):
            return type(value)(tame(inner) for inner in value)
        if isinstance(value, dict):
            return {tame(key): tame(inner) for key, inner in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: tame(getattr(value, field.name)) for field in fields(value)})
        return value

    wild, tamed = Elements(render_bench(hostile)), Elements(render_bench(tame(hostile)))
    assert [tag for tag, _ in wild.elements] == [tag for tag, _ in tamed.elements]
    assert [sorted(attributes) for _, attributes in wild.elements] == [sorted(attributes) for _, attributes in tamed.elements]


def test_a_bench_of_five_methods_six_data_sets_and_five_seeds_is_small(tmp_path: Path) -> None:
    page = write_bench_report(make_bench(tmp_path), "unseen report bench", tmp_path / "page.html")
    html = page.read_text("utf-8")
    assert page.stat().st_size < 15_000_000
    assert html.count('class="panel"') == 6, "and no figure is left out for it"
    assert page.stat().st_size < 9_000_000, "far below, in fact: what is beyond plotly has not doubled unseen"


def test_the_same_contents_give_the_same_bytes(bench: Bench, html: str) -> None:
    assert render_bench(bench) == html


@pytest.mark.parametrize(
    ("value", "least", "most", "shown"),
    [(0.5, 0, 1, "50.00%"), (-0.1, -0.2, 0.2, "25.00%"), (2, 0, 1, "100.00%"), (-1, 0, 1, "0.00%"), (0.3, 0, 0, "0.00%")],
)
def test_place(value: float, least: float, most: float, shown: str) -> None:
    assert place(value, least, most) == shown


def test_words_of_a_difference(bench: Bench) -> None:
    estimate = next(d.paired.difference for d in bench.differences)
    assert estimate is not None

    def said(interval: tuple[float, float] | None, over: str = "splits and seeds") -> str:
        return word(replace(estimate, interval=interval, over=over))

    assert said((0.1, 0.2)) == "higher"
    assert said((-0.2, -0.1)) == "lower"
    assert said((-0.1, 0.2)) == said((0.0, 0.2)) == "no clear difference"
    assert said((0.1, 0.2), "seeds") == "higher on this split"
    assert said(None) == "too little to draw an interval from"


def test_page_holds_plain_data_only(bench: Bench) -> None:
    known = (str, bool, int, float, np.ndarray, np.generic, type(None))

    def look(value: object, where: str) -> None:
        if is_dataclass(value):
            for field in fields(value):
                look(getattr(value, field.name), f"{where}.{field.name}")
        elif isinstance(value, dict):
            for key, inner in value.items():
                look(inner, f"{where}[{key!r}]")
        elif isinstance(value, tuple | list | frozenset):
            for inner in value:
                look(inner, where)
        else:
            assert isinstance(value, known), f"{where} is a {type(value)}"

    look(bench, "bench")
