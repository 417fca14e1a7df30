"""What a reader's browser makes of the page: headless Chromium opens it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import contrast
from demo_page import HOSTILE, demo_page, hostile_page
from opened import Opened

import unseen.report
from unseen.report import render
from unseen.report.figures import label, printable

Open = Callable[..., Opened]

OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"
WIDEST = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"


@pytest.fixture(scope="module")
def demo() -> str:
    return render(demo_page())


@pytest.fixture(scope="module")
def hostile() -> str:
    return render(hostile_page())


def test_demo_opens_without_a_complaint_or_a_request_and_draws_every_figure(demo: str, open_page: Open) -> None:
    page = open_page(demo)
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    assert page.tab.evaluate("[...document.querySelectorAll('.plot')].filter(p => p.querySelector('svg.main-svg')).length") == 3
    assert page.tab.evaluate("document.querySelectorAll('#curve .scatterlayer .trace').length") == 2 * 3
    assert page.tab.evaluate("document.querySelectorAll('#projection .scatterlayer .trace').length") == 2 * 20
    assert page.tab.evaluate("document.querySelectorAll('#projection .point').length") == 20 * (8 + 30)
    assert page.tab.evaluate("document.querySelectorAll('#confusion .hm image').length") == 1
    assert page.tab.evaluate("[...document.querySelectorAll('.plot')].every(p => p.getAttribute('aria-label'))")
    # The sheet must have been decoded, not only named.
    assert page.tab.evaluate(
        """async () => { const i = new Image(); i.src = getComputedStyle(document.querySelector('.tile'))
        .backgroundImage.slice(5, -2); await i.decode(); return [i.naturalWidth, i.naturalHeight] }"""
    ) == [640, 1280]
    page.tab.emulate_media(color_scheme="dark")
    page.tab.wait_for_selector("html[data-drawn=dark]", state="attached")
    assert page.complaints == []
    assert [address for address in page.requests if not address.startswith(("data:", "blob:"))] == []


def test_table_shows_the_values_to_one_decimal(demo: str, open_page: Open) -> None:
    page = open_page(demo, java_script_enabled=False)
    cells = page.tab.eval_on_selector_all(
        "#results-table tbody tr:not(.part)", "rows => rows.map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    assert len(cells) == len(demo_page().results)
    for shown, row in zip(cells, demo_page().results, strict=True):
        low, high = row["H_interval"]  # type: ignore[misc]
        assert shown[0].split()[:2] == [row["method"], row["protocol"]]
        accuracies = [shown[1], shown[2], shown[3], shown[4], shown[6], shown[7]]
        assert accuracies == [f"{100 * row[key]:.1f}" for key in ("T1", "U", "S", "H", "H_without_gamma", "AUSUC")]  # type: ignore[operator]
        assert shown[5] == f"{100 * low:.1f}–{100 * high:.1f}"
    assert cells[2][8:] == ["361", "1\u202f024", "12\u202f000", "71.2"]
    assert cells[0][9:11] == ["–", "–"]
    origin = dict(
        zip(page.texts("details.origin:nth-of-type(2) dt"), page.texts("details.origin:nth-of-type(2) dd"), strict=True)
    )
    assert float(origin["H"]) == demo_page().results[0]["H"], "the details hold every digit"
    assert origin["hyperparameters_from"] == "folds"


def test_pictures_are_marked_right_or_wrong_in_words_and_signs(demo: str, open_page: Open) -> None:
    gallery = demo_page().gallery
    assert gallery is not None
    page = open_page(demo, java_script_enabled=False)
    guesses = page.tab.eval_on_selector_all(
        ".guesses li",
        "all => all.map(e => [e.querySelector('.mark').getAttribute('aria-label'), e.querySelector('.mark').textContent,"
        " e.querySelector('bdi').textContent, e.querySelector('.answer bdi').textContent, !!e.querySelector('.seen')])",
    )
    expected = [
        ["right" if right else "wrong", "✓" if right else "✗", method, answer, seen]
        for picture in gallery.pictures
        for method, answer, right, seen in picture.guesses
    ]
    assert guesses == expected


def test_hostile_names_stay_text(hostile: str, open_page: Open) -> None:
    page = open_page(hostile)
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    assert page.tab.evaluate("window.hacked") is None
    assert page.complaints == []
    assert [address for address in page.requests if not address.startswith(("data:", "blob:"))] == []
    assert page.texts("#seen-names bdi") == [printable(name) for name in HOSTILE]
    assert page.texts("#unseen .about b") == [printable(name) for name in HOSTILE]
    assert page.texts("h1") == [printable(" ".join(HOSTILE))]
    assert page.texts("#command code") == [printable(" ".join(HOSTILE))]
    assert page.tab.evaluate("document.querySelectorAll('img, iframe, object, embed, form').length") == 0
    assert page.tab.evaluate("[...document.querySelectorAll('a')].every(a => a.getAttribute('href').startsWith('#'))")
    assert page.tab.evaluate("document.querySelectorAll('body script').length") == 3 + 2
    # plotly would make elements of <b> and <a href>, and entities of &lt;, had the names not been escaped for it.
    drawn = [html.unescape(label(name)) for name in HOSTILE]
    assert page.texts("#projection .legendtext") == drawn
    assert page.texts("#projection .annotation-text") == drawn
    assert page.texts("#confusion .ytick text") == drawn
    assert page.texts("#confusion .xtick text") == [*drawn, "a seen class"]
    assert [text.rsplit(" (", 1)[0] for text in page.texts("#curve .legendtext")] == drawn[:3]
    assert page.tab.evaluate("document.querySelectorAll('.plot svg a, .plot tspan[style*=weight]').length") == 0


def test_hostile_names_stay_text_under_the_pointer(hostile: str, open_page: Open) -> None:
    page = open_page(hostile)
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    page.tab.evaluate("document.getElementById('confusion').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = page.tab.locator("#confusion .nsewdrag").bounding_box()
    step = box["width"] / (len(HOSTILE) + 1)
    page.tab.mouse.move(box["x"] + 2.5 * step, box["y"] + 0.5 * box["height"] / len(HOSTILE))
    page.tab.wait_for_selector("#confusion .hoverlayer text")
    (hover,) = page.texts("#confusion .hoverlayer .hovertext text.nums")
    first, third = (html.unescape(label(HOSTILE[i])) for i in (0, 2))
    assert hover.startswith(f"is: {first}taken for: {third}")
    assert page.tab.evaluate("document.querySelectorAll('.hoverlayer a, .hoverlayer tspan[style*=weight]').length") == 0


def test_policy_stops_a_script_that_the_page_did_not_bring(demo: str, open_page: Open) -> None:
    """The second wall: were some text not escaped one day, its script would still not run and nothing would be fetched."""
    injected = "<script>window.hacked = 1</script><img src='https://example.org/x.png' onerror='window.hacked = 2'></body>"
    page = open_page(demo.replace("</body>", injected))
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    assert page.tab.evaluate("window.hacked") is None
    assert sum("Content Security Policy" in complaint for complaint in page.complaints) >= 2


@pytest.mark.parametrize("which", ["demo", "hostile"])
def test_nothing_runs_out_of_a_phone(which: str, open_page: Open, request: pytest.FixtureRequest) -> None:
    page = open_page(request.getfixturevalue(which), width=390, is_mobile=True, has_touch=True)
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    assert page.tab.evaluate(WIDEST) == 390
    page.tab.evaluate(OPEN_ALL)
    assert page.tab.evaluate(WIDEST) == 390
    assert page.tab.evaluate("document.querySelector('#curve svg.main-svg').getBoundingClientRect().right") <= 390
    # A finger on a figure must scroll the page.
    assert page.tab.evaluate("document.getElementById('projection').layout.dragmode") is False


def test_figures_follow_the_window(demo: str, open_page: Open) -> None:
    page = open_page(demo)
    page.tab.wait_for_selector("html[data-drawn]", state="attached")
    page.tab.set_viewport_size({"width": 500, "height": 900})
    page.tab.wait_for_function("document.querySelector('#projection svg.main-svg').getBoundingClientRect().width < 500")
    assert page.tab.evaluate(WIDEST) == 500


def test_figures_take_the_readers_colours_and_print_in_light_ones(demo: str, open_page: Open) -> None:
    page = open_page(demo, color_scheme="light")
    colours = {}
    for scheme, medium in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        page.tab.emulate_media(color_scheme=scheme, media=medium)
        drawn = "dark" if (scheme, medium) == ("dark", "screen") else "light"
        page.tab.wait_for_selector(f"html[data-drawn={drawn}]", state="attached")
        colours[scheme, medium] = page.tab.evaluate(
            """() => ({page: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
            drawn: getComputedStyle(document.querySelector('#curve .legendtext')).fill,
            line: getComputedStyle(document.querySelector('#curve .js-line')).stroke})"""
        )
    for shown in colours.values():
        assert shown["ink"] == shown["drawn"], "a figure's text has the colour of the page's text"
    assert colours["light", "screen"]["page"] == colours["dark", "print"]["page"] == "rgb(255, 255, 255)"
    assert colours["dark", "print"]["line"] == colours["light", "screen"]["line"] != colours["dark", "screen"]["line"]
    assert sum(map(int, re.findall(r"\d+", colours["dark", "screen"]["page"]))) < 100


def test_page_reads_without_script(demo: str, open_page: Open) -> None:
    page = open_page(demo, java_script_enabled=False)
    assert page.tab.locator("noscript p").count() == 3
    assert page.tab.locator(".curves tbody tr").count() == 3
    assert page.tab.locator(".mistakes tbody tr").count() == 20


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_stand_out_from_their_ground(scheme: str) -> None:
    """Contrast of WCAG 2.2: 4.5 for text (1.4.3), 3 for marks of a figure (1.4.11)."""
    style = (Path(unseen.report.__file__).parent / "page.css").read_text("utf-8")
    light, dark, print_ = re.findall(r":root \{(.*?)\n\s*\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", {"light": light, "dark": dark, "print": print_}[scheme]))
    for text in ("ink", "muted", "accent", "right", "wrong"):
        for ground in ("page", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for number in range(7):
        assert contrast(colours[f"series-{number}"], colours["page"]) >= 3, number
    assert contrast(colours["heat-0"], colours["heat-2"]) >= 7
