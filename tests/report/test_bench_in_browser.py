"""What a reader's browser makes of the page of a bench: headless Chromium opens it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_folder import hostile_bench, make_bench, write_failure
from demo_page import HOSTILE
from opened import Opened

from unseen.report.bench_assemble import contents_of
from unseen.report.bench_contents import Bench
from unseen.report.bench_page import render_bench
from unseen.report.figures import label, printable

Open = Callable[..., Opened]

OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"
WIDEST = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
DRAWN = "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('svg.main-svg')).map(p => p.id)"
SHOWN = "e => e.offsetParent !== null"
TEXTS = """[...document.querySelectorAll('main *, header *, footer *')].filter(e => e.offsetParent !== null && !e.closest('svg')
    && !e.closest('.hidden') && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))"""

CONTRAST = f"""() => {{
    const canvas = document.createElement('canvas').getContext('2d', {{ willReadFrequently: true }});
    const rgba = colour => {{
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    }};
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = element => {{
        for (let e = element; e; e = e.parentElement) {{
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }}
        return [255, 255, 255];
    }};
    return {TEXTS}.map(e => {{
        const [low, high] = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => a - b);
        return [e.tagName + '.' + e.className, (high + 0.05) / (low + 0.05)];
    }});
}}"""


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = make_bench(
        tmp_path_factory.mktemp("browser") / "bench",
        methods=("class-gaussian", "tfvaegan", "transductive-x"),
        datasets={"birds": (9, 3), "fish": (6, 4)},
        splits=("one", "two"),
        seeds=2,
        protocols=("blind", "paper"),
        variants={"tfvaegan": ("without feedback",)},
    )
    write_failure(folder, "dfca", "birds", "one", 0, "the loss is not finite")
    return contents_of(folder, "unseen report bench")


@pytest.fixture(scope="module")
def page(contents: Bench) -> str:
    return render_bench(contents)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("hostile") / "bench"
    return render_bench(contents_of(hostile_bench(folder, HOSTILE), " ".join(HOSTILE)))


def draw_all(opened: Opened) -> None:
    """Go through the page as a reader does."""
    for plot in opened.tab.locator(".plot").all():
        if plot.is_visible():
            plot.scroll_into_view_if_needed()
            plot.locator("svg.main-svg").first.wait_for(state="attached")


def test_opens_without_a_complaint_or_a_request_and_draws_what_the_reader_comes_to(page: str, open_page: Open) -> None:
    opened = open_page(page)
    opened.tab.wait_for_selector("html[data-drawn]", state="attached")
    assert opened.tab.evaluate(DRAWN) == [], "nothing is drawn that nobody sees"
    draw_all(opened)
    kinds = ["curve", "history-2", "history-3", "history-4", "history-5", "planes", "synthetic", "heat-0"]
    assert opened.tab.evaluate(DRAWN) == [f"view-0-{kind}" for kind in kinds]
    assert opened.tab.evaluate("document.querySelectorAll('#view-0-curve .scatterlayer .trace').length") == 2 * 6
    assert opened.tab.evaluate("document.querySelectorAll('#view-0-planes .point').length") == 4 * 600
    assert opened.tab.evaluate("document.querySelectorAll('#view-0-synthetic .scatterlayer .trace').length") == 4 * 4
    assert opened.tab.evaluate("[...document.querySelectorAll('.plot')].every(p => p.getAttribute('aria-label'))")
    opened.tab.emulate_media(color_scheme="dark")
    opened.tab.wait_for_selector("html[data-drawn=dark]", state="attached")
    assert opened.complaints == []
    assert [address for address in opened.requests if not address.startswith(("data:", "blob:"))] == []


def test_filters_show_exactly_the_lines_that_all_of_them_let_through(contents: Bench, page: str, open_page: Open) -> None:
    opened = open_page(page)
    lines = {k: line for k, line in enumerate(contents.lines) if not line.variant}
    rows = opened.tab.evaluate(
        "[...document.querySelectorAll('#leaderboard tr[data-dataset]')].map(r => +r.querySelector('a').hash.slice(6))"
    )
    assert sorted(rows) == sorted(lines)
    seen = []
    options = {key: opened.tab.locator(f"#only-{key} option").all_text_contents() for key in ("protocol", "dataset", "setting")}
    assert options == {
        "protocol": ["all protocols", "blind", "paper"],
        "dataset": ["all data sets", "birds", "fish"],
        "setting": ["inductive and transductive", "inductive", "transductive"],
    }
    for protocol, dataset, setting in itertools.product(*options.values()):
        visible, heads = opened.tab.evaluate(
            f"""choices => {{
                for (const [key, label] of Object.entries(choices)) {{
                    const select = document.getElementById(`only-${{key}}`);
                    select.selectedIndex = [...select.options].findIndex(o => o.textContent === label);
                    select.dispatchEvent(new Event('change'));
                }}
                const shown = selector => [...document.querySelectorAll(selector)].filter({SHOWN});
                return [shown('#leaderboard tr[data-dataset]').map(r => +r.querySelector('a').hash.slice(6)),
                        shown('#leaderboard tr.group').map(r => r.innerText.trim())];
            }}""",
            {"protocol": protocol, "dataset": dataset, "setting": setting},
        )
        expected = {
            k
            for k, line in lines.items()
            if protocol in ("all protocols", line.protocol)
            and dataset in ("all data sets", line.dataset)
            and (setting == "inductive and transductive" or line.transductive is (setting == "transductive"))
        }
        assert set(visible) == expected
        assert heads == sorted({lines[k].dataset for k in expected})
        assert opened.tab.inner_text("#shown-lines") == f"{len(expected)} of {len(lines)} lines shown"
        seen.append(len(expected))
    assert min(seen) < max(seen) == len(lines)


def test_one_view_and_one_heat_map_are_shown_at_a_time(page: str, open_page: Open) -> None:
    opened = open_page(page)
    tab = opened.tab
    panels = f"[...document.querySelectorAll('.panel')].filter({SHOWN}).map(p => p.dataset.value)"
    assert tab.evaluate(panels) == ["view-0"]
    tab.select_option("#view", label="fish, two")
    assert tab.evaluate(panels) == ["view-3"]
    assert tab.inner_text(".panel:not([hidden]) h3") == "fish, split two"
    tab.locator("#view-3-curve").scroll_into_view_if_needed()
    tab.wait_for_selector("#view-3-curve svg.main-svg")
    tab.select_option("#view-3-heat", label="tfvaegan, paper")
    captions = tab.eval_on_selector_all(".panel:not([hidden]) figcaption", f"all => all.filter({SHOWN}).map(e => e.innerText)")
    assert sum(caption.startswith("Answers of ") for caption in captions) == 1
    assert any(caption.startswith("Answers of tfvaegan, paper on") for caption in captions)
    heat = tab.locator(".panel:not([hidden]) [data-shown-by=view-3-heat]:not([hidden]) .plot")
    heat.scroll_into_view_if_needed()
    heat.locator("svg.main-svg").first.wait_for(state="attached")
    assert opened.complaints == []


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without"])
def test_a_click_on_a_number_opens_the_runs_it_comes_from(script: bool, contents: Bench, page: str, open_page: Open) -> None:
    tab = open_page(page, java_script_enabled=script).tab
    for place in ("#leaderboard", ".differences", ".ablation", "#cost-table") if script else ("#leaderboard",):
        link = tab.locator(f"{place} td a[href^='#from-']").nth(3)
        number = int(link.get_attribute("href").removeprefix("#from-"))
        assert not tab.locator(f"#from-{number} table").is_visible()
        link.click()
        table = tab.locator(f"#from-{number} table")
        table.wait_for(state="visible")
        if script:
            tab.wait_for_function(
                f"(b => b.top > 0 && b.top < innerHeight)(document.querySelector('#from-{number}').getBoundingClientRect())"
            )
        files = [contents.runs[k].file for k in contents.lines[number].runs]
        assert table.locator("code").all_text_contents() == files
        if script:
            tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    assert tab.locator(f"#from-{number} dl.exact").first.is_visible() is not script


def test_hostile_names_stay_text(hostile: str, open_page: Open) -> None:
    opened = open_page(hostile)
    tab = opened.tab
    draw_all(opened)
    assert tab.evaluate("window.hacked") is None
    assert opened.complaints == []
    assert [address for address in opened.requests if not address.startswith(("data:", "blob:"))] == []
    assert tab.evaluate("document.querySelectorAll('img, iframe, object, embed, form').length") == 0
    assert tab.evaluate("[...document.querySelectorAll('a')].every(a => a.getAttribute('href').startsWith('#'))")
    assert opened.texts("#command code") == [printable(text) for text in (*HOSTILE, " ".join(HOSTILE))]
    methods = {printable(name) for name in (*HOSTILE[:2], "long" * 2500)}
    named = opened.texts("#leaderboard tr[data-dataset] th bdi:first-of-type")
    assert {name for name in named if not name.startswith("oracle (")} >= methods
    assert opened.texts("#leaderboard tr.group bdi") == sorted(printable(name) for name in HOSTILE[3:5])
    assert set(tab.locator("#only-dataset option").all_text_contents()[1:]) == {printable(name) for name in HOSTILE[3:5]}
    assert opened.texts("#failure-table .sentence bdi") == [printable(" ".join(HOSTILE))]
    assert any(name == printable(HOSTILE[6]) for name in opened.texts(".ablation tbody th bdi"))
    # plotly would make elements of <b> and <a href>, and entities of &lt;, had the names not been escaped for it.
    assert tab.evaluate("document.querySelectorAll('.plot svg a, .plot tspan[style*=weight]').length") == 0
    drawn = {html.unescape(label(name)) for name in HOSTILE[:2]}
    assert drawn <= set(opened.texts(".panel:not([hidden]) .history .annotation-text"))
    tab.select_option("#view", index=3)
    draw_all(opened)
    assert tab.evaluate("window.hacked") is None
    assert opened.complaints == []


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_nothing_runs_out_of_a_phone(which: str, open_page: Open, request: pytest.FixtureRequest) -> None:
    opened = open_page(request.getfixturevalue(which), width=360, is_mobile=True, has_touch=True)
    draw_all(opened)
    assert opened.tab.evaluate(WIDEST) == 360
    opened.tab.evaluate(OPEN_ALL)
    assert opened.tab.evaluate(WIDEST) == 360
    assert opened.tab.evaluate("document.querySelector('.plot svg.main-svg').getBoundingClientRect().right") <= 360
    small = opened.tab.evaluate(
        f"[...document.querySelectorAll('select, td a')].filter({SHOWN}).map(e => e.getBoundingClientRect())"
        ".filter(b => b.width < 24 || b.height < 24).length"
    )
    assert small == 0, "a finger hits what can be touched"


def test_small_plots_take_as_many_columns_as_fit_and_keep_their_place_before(page: str, open_page: Open) -> None:
    opened = open_page(page)
    tab = opened.tab
    tab.wait_for_selector("html[data-drawn]", state="attached")
    kept = tab.eval_on_selector_all(".plot", f"all => all.filter({SHOWN}).map(e => e.getBoundingClientRect().height)")
    draw_all(opened)
    drawn = tab.eval_on_selector_all(".plot", f"all => all.filter({SHOWN}).map(e => e.getBoundingClientRect().height)")
    assert kept == drawn

    def columns() -> int:
        return int(tab.evaluate("document.getElementById('view-0-synthetic').layout.grid.columns"))

    assert columns() == 4
    tab.set_viewport_size({"width": 600, "height": 900})
    tab.wait_for_function("document.getElementById('view-0-synthetic').layout.grid.columns === 2")
    tab.set_viewport_size({"width": 360, "height": 900})
    tab.wait_for_function("document.getElementById('view-0-synthetic').layout.grid.columns === 1")


def test_every_text_stands_out_from_its_ground(page: str, open_page: Open) -> None:
    """Contrast of WCAG 2.2, 1.4.3."""
    opened = open_page(page)
    opened.tab.evaluate(OPEN_ALL)
    for scheme in ("light", "dark"):
        opened.tab.emulate_media(color_scheme=scheme)
        found = opened.tab.evaluate(CONTRAST)
        assert len(found) > 1000
        assert {name: contrast for name, contrast in found if contrast < 4.5} == {}, scheme


def test_a_printed_page_is_light_and_has_all_figures_of_its_view(page: str, open_page: Open) -> None:
    opened = open_page(page, color_scheme="dark")
    tab = opened.tab
    tab.wait_for_selector("html[data-drawn=dark]", state="attached")
    tab.emulate_media(media="print")
    tab.wait_for_selector("html[data-drawn=light]", state="attached")
    assert len(tab.evaluate(DRAWN)) == 8
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('#view-0-curve .legendtext')).fill") == "rgb(0, 0, 0)"
    assert not tab.locator("nav").is_visible()
    assert len(tab.pdf(format="A4")) > 100_000
    tab.emulate_media(media="screen")
    tab.wait_for_selector("html[data-drawn=dark]", state="attached")


def test_everything_is_reached_by_keyboard(page: str, open_page: Open) -> None:
    tab = open_page(page).tab
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("(e => e.id || e.getAttribute('href') || e.className)(document.activeElement)"))
        if reached[-1].startswith("#from-"):
            break
    expected = ["#results", "#command", "only-protocol", "only-dataset", "only-setting", "scroll"]
    assert [name for name in reached if name in expected] == expected
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    tab.wait_for_selector(f"{reached[-1]} table", state="visible")
    tab.focus("#only-protocol")
    tab.keyboard.press("ArrowDown")
    tab.wait_for_function("document.querySelector('#leaderboard tr[data-protocol=\"1\"]').hidden")
    tab.focus("#view")
    tab.keyboard.press("ArrowDown")
    tab.wait_for_selector(".panel[data-value=view-1]", state="visible")


def test_page_reads_without_script(contents: Bench, page: str, open_page: Open) -> None:
    tab = open_page(page, java_script_enabled=False).tab
    lines = [line for line in contents.lines if not line.variant]
    assert tab.locator("#leaderboard tr[data-dataset]").count() == len(lines)
    assert all(row.is_visible() for row in tab.locator("#leaderboard tr[data-dataset]").all())
    assert tab.locator(".panel table.per-class").first.is_visible()
    assert sum(panel.is_visible() for panel in tab.locator(".panel").all()) == 4
    assert not any(control.is_visible() for control in tab.locator(".control").all()), "what does nothing is not offered"
    assert tab.locator("#differences, .differences").first.is_visible()
