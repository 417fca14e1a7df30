from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from demo_page import HOSTILE, demo_page, hostile_page
from opened import Elements

from unseen.errors import DataError, MissingDependency
from unseen.report import render
from unseen.report.rendering import number, percent, plain, safe_json

SECTIONS = ["classes", "results", "curves", "pictures", "plane", "mistakes", "per-class", "sources", "command"]


@pytest.fixture(scope="module")
def html() -> str:
    return render(demo_page())


def test_sections_stand_in_order(html: str) -> None:
    sections = [attributes["id"] for tag, attributes in Elements(html).elements if tag == "section"]
    assert sections == SECTIONS
    assert html.index(demo_page().verdict) < html.index('<section id="classes">')


def test_missing_parts_leave_their_sections_and_links_out() -> None:
    bare = replace(demo_page(), curves=(), projection=None, confusion=None, gallery=None, per_class=())
    html = render(bare)
    sections = [attributes["id"] for tag, attributes in Elements(html).elements if tag == "section"]
    assert sections == ["classes", "results", "sources", "command"]
    links = {attributes["href"][1:] for tag, attributes in Elements(html).elements if tag == "a"}
    assert links == set(sections)
    assert "<script" not in html, "a page without figures needs no script"


def test_page_refers_to_nothing_outside_itself(html: str) -> None:
    parsed = Elements(html)
    for tag, attributes in parsed.elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith(("#", "data:")), attributes
        assert tag not in ("iframe", "object", "embed", "form", "base")
    addresses = re.findall(r"url\(\s*['\"]?([^'\")]{0,20})", "".join(parsed.styles))
    assert addresses
    assert all(address.startswith("data:image/png;") for address in addresses)
    assert "@import" not in "".join(parsed.styles)


def test_thumbnails_share_one_embedded_sheet(html: str) -> None:
    assert "".join(Elements(html).styles).count("data:image/") == 1
    tiles = [attributes for _, attributes in Elements(html).elements if attributes.get("class") == "tile"]
    gallery = demo_page().gallery
    assert gallery is not None
    assert len(tiles) == len(gallery.pictures) + len(gallery.seen_examples) + len(demo_page().unseen)
    styles = Counter(tile["style"] for tile in tiles)
    for picture in gallery.pictures:
        assert styles[f"--x:{picture.tile[0]};--y:{picture.tile[1]}"] >= 1
    assert all(tile["aria-label"] for tile in tiles)


def test_same_page_gives_the_same_bytes_in_every_process(html: str) -> None:
    program = (
        "import hashlib; from demo_page import demo_page; from unseen.report import render;"
        "print(hashlib.sha256(render(demo_page()).encode()).hexdigest())"
    )
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        }
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_hostile_names_change_no_element() -> None:
    """The same page with harmless names of the same number has exactly the same elements."""
    harmless = hostile_page()
    names = {name: f"class {i}" for i, name in enumerate(HOSTILE)}
    joined = " ".join(HOSTILE)

    def tame(value: object) -> object:
        if isinstance(value, str):
            return names.get(value, "all" if value == joined else value)
        if isinstance(value, tuple):
            return tuple(tame(inner) for inner in value)
        if isinstance(value, dict):
            return {tame(key): tame(inner) for key, inner in value.items()}
        if hasattr(value, "__dataclass_fields__"):
            return replace(value, **{key: tame(getattr(value, key)) for key in value.__dataclass_fields__})
        return value

    wild, tamed = Elements(render(harmless)), Elements(render(tame(harmless)))  # type: ignore[arg-type]
    assert [tag for tag, _ in wild.elements] == [tag for tag, _ in tamed.elements]
    assert [sorted(attributes) for _, attributes in wild.elements] == [sorted(attributes) for _, attributes in tamed.elements]


def test_json_of_a_figure_cannot_end_its_script_element() -> None:
    figure = {"text": "</script><!-- <script> & \u2028 'quoted' \"", "numbers": [1.5, None]}
    text = safe_json(figure)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == figure
    with pytest.raises(ValueError, match="JSON compliant"):
        safe_json(float("nan"))


def test_no_control_character_and_no_half_surrogate_reaches_the_page() -> None:
    html = render(replace(demo_page(), title="a\x00b\ud800c\x1bd\x85e\nf"))
    assert "<h1>a\ufffdb\ufffdc\ufffdd\ufffde\nf</h1>" in html
    html.encode("utf-8")


def test_unknown_media_type_is_refused() -> None:
    page = demo_page()
    assert page.gallery is not None
    with pytest.raises(DataError, match=r"'image/svg\+xml'; give one of image/png"):
        render(replace(page, gallery=replace(page.gallery, media_type="image/svg+xml")))


@pytest.mark.parametrize("package", ["jinja2", "plotly.offline"])
def test_missing_package_is_named_with_the_command_that_installs_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"'{package}'.*pip install 'unseen\[report\]'"):
        render(demo_page())


def test_importing_the_report_loads_no_heavy_package() -> None:
    program = (
        "import sys, unseen.report as r; r.Page, r.render, r.project;"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'plotly', 'jinja2') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_module_says_alone_stands_below_its_method_and_is_never_the_best(html: str) -> None:
    rows = html.split("<tbody>")[1].split("</tbody>")[0].split("<tr")[1:]
    [place] = [k for k, row in enumerate(rows) if "its module alone" in row]
    assert "<bdi>bsegn</bdi>" in rows[place - 1]
    assert "diagnosis, no result" in rows[place]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", rows[place])
    # T1, U, S, H, its interval, H without γ, AUSUC; pictures, width, steps, seconds
    assert cells == ["99.0", "98.0", "5.0", "9.5", "–", "9.5", "97.0", "–", "–", "–", "–"]
    assert "best" not in rows[place], "though some of it is higher than anything else"
    assert "it chooses nothing" in html
    bare = replace(demo_page(), results=demo_page().results[:3])
    assert "module alone" not in render(bare)


def test_best_is_marked_among_fair_rows_only(html: str) -> None:
    """The oracle and the row chosen on the test set are higher in every column, and carry no mark."""
    best = re.findall(r'<td class="accuracy best">([^<]*)</td>', html)
    assert best == ["52.0", "41.2", "31.2", "37.1", "22.2", "12.0"]
    assert html.count("chosen on the test set</span>") == 1
    assert html.count("oracle: trained on unseen classes</span>") == 1


def test_long_lists_wait_behind_a_line_to_click() -> None:
    names = tuple(f"class {i}" for i in range(300))
    html = render(replace(demo_page(), unseen=tuple((name, "") for name in names), gallery=None))
    assert "The other 240 unseen classes" in html
    assert all(f"<bdi>{name}</bdi>" in html for name in names)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.4125, "41.2"), (0.0, "0.0"), (1, "100.0"), (None, "–"), (float("nan"), "–"), ("x", "–"), (0.99996, "100.0")],
)
def test_percent(value: object, shown: str) -> None:
    assert percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (12000, "12\u202f000"),
        (0.44, "0.4"),
        (1234.6, "1\u202f235"),
        (None, "–"),
        (float("nan"), "–"),
        ("many", "many"),
    ],
)
def test_number(value: object, shown: str) -> None:
    assert number(value) == shown


def test_plain_loses_no_digit() -> None:
    import numpy as np

    assert plain({"gamma": np.float64(0.7312345), "widths": (1, np.int64(2)), "on": True}) == (
        '{"gamma": 0.7312345, "widths": [1, 2], "on": true}'
    )
    assert plain("text") == "text"
    assert plain(None) == "null"
