"""The page in headless Chromium: a picture is looked at, a class is told, and the same picture is recognised anew."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import contrast
from opened import Opened
from small_server import TOKEN, World, painter, picture, run

import unseen.serving
from unseen import ZeroShotClassifier
from unseen.serving import create_app

Visit = Callable[..., Opened]

WIDEST = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
DROP = """([data, kind]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "a picture", {type: "image/png"}));
    const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
        : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.getElementById("drop").dispatchEvent(event);
}"""
HOSTILE = "<img src=x onerror=\"window.hacked = 1\"> & 'quoted' </script><b>"


@pytest.fixture(scope="module")
def painted() -> ZeroShotClassifier:
    return painter()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """`visit(place, width=…)`: the page of the server there, loaded, with all that it asked for and complained about."""
    contexts = []

    def open_(place: tuple[str, int], width: int = 1200, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.tab.on("request", lambda request: opened.requests.append(request.url))
        opened.tab.on("console", lambda message: opened.complaints.append(message.text))
        opened.tab.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.tab.on("dialog", lambda dialog: (opened.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        opened.tab.goto(f"http://{place[0]}:{place[1]}/")
        opened.tab.wait_for_function("() => document.getElementById('about').textContent.startsWith('The model')")
        return opened

    yield open_
    for context in contexts:
        context.close()


def give(page: Opened, data: bytes, kind: str = "drop") -> None:
    page.tab.evaluate(DROP, [base64.b64encode(data).decode(), kind])


def says(page: Opened, verdict: str) -> None:
    page.tab.wait_for_function("words => document.getElementById('verdict').textContent === words", arg=verdict)


def told(page: Opened, words: str) -> None:
    page.tab.wait_for_function("words => document.getElementById('told').textContent === words", arg=words)


def focused(page: Opened) -> str:
    return str(page.tab.evaluate("document.activeElement.id || document.activeElement.tagName.toLowerCase()"))


def only_asks(page: Opened, place: tuple[str, int]) -> bool:
    own = f"http://{place[0]}:{place[1]}/"
    return all(address.startswith((own, "data:", f"blob:{own}")) for address in page.requests)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted_is_recognised(kind: str, visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, TOKEN)) as place:
        page = visit(place)
        assert page.tab.locator("#about").text_content() == "The model tells 12 classes apart."
        give(page, picture("red"), kind)
        says(page, "a red thing")
        assert page.texts("#remark") == ["100 % sure."]
        assert len(page.texts("#guesses li")) == 6
        assert page.texts("#guesses bdi")[0] == "a red thing"
        widths = "[...document.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect().width)"
        page.tab.wait_for_function(f"() => {widths}[0] > 100")
        assert page.tab.evaluate(widths)[1] < 2
        assert page.tab.evaluate("document.getElementById('preview').naturalWidth") == 8
        assert page.complaints == []
        assert only_asks(page, place)


def test_a_class_is_taught_by_keyboard_alone_and_recognised_at_once(visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, TOKEN)) as place:
        page, choosers = visit(place), []
        # Before the key is pressed, because a dialog that nobody waits for does not open.
        page.tab.on("filechooser", lambda chooser: choosers.append(chooser))
        keys = page.tab.keyboard
        keys.press("Tab")
        assert focused(page) == "file"
        assert page.tab.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid", "focus is seen"
        keys.press("Enter")
        for _ in range(200):
            if choosers:
                break
            page.tab.wait_for_timeout(20)
        choosers[0].set_files({"name": "mango.png", "mimeType": "image/png", "buffer": picture("orange")})
        says(page, "a yellow thing")

        for field, words in (("name", "a mango"), ("said", "orange, ripe"), ("token", "wrong")):
            keys.press("Tab")
            assert focused(page) == field
            keys.type(words)
        keys.press("Enter")
        told(page, "This needs the server's token; send it as `Authorization: Bearer …`.")
        assert page.tab.locator("#name").input_value() == "a mango", "nothing that was typed is lost"
        keys.press("Control+A")
        keys.type(TOKEN)
        keys.press("Tab")
        assert focused(page) == "add"
        keys.press("Enter")
        told(page, "a mango can be recognised now.")
        says(page, "a mango")
        assert page.texts("#remark") == ["100 % sure. The model was never shown this class, and takes this for one of those."]
        assert page.tab.locator("#guesses li").first.inner_text().split("\n")[0].startswith("a mango")
        assert page.tab.locator("#guesses li").first.locator(".tag").text_content() == "never seen"
        assert focused(page) == "name", "ready for the next one"
        assert page.tab.locator("#about").text_content() == "The model tells 13 classes apart, 1 of which it was never shown."

        for _ in range(4):
            keys.press("Tab")
        assert focused(page) == "summary"
        keys.press("Enter")
        keys.press("Tab")
        assert page.tab.evaluate("document.activeElement.getAttribute('aria-label')") == "remove a mango"
        keys.press("Enter")
        told(page, "a mango is not answered any more.")
        says(page, "a yellow thing")
        assert focused(page) == "summary"
        # A browser writes down a refused request by itself; nothing else is complained of.
        assert page.complaints == ["Failed to load resource: the server responded with a status of 401 (Unauthorized)"]
        assert only_asks(page, place)


def test_names_and_sentences_are_text(visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, TOKEN)) as place:
        page = visit(place)
        give(page, picture("orange"))
        for field, words in (("name", HOSTILE), ("said", "orange"), ("token", TOKEN)):
            page.tab.fill(f"#{field}", words)
        page.tab.click("#add")
        told(page, f"{HOSTILE} can be recognised now.")
        says(page, HOSTILE)
        assert page.texts("#guesses bdi")[0] == HOSTILE
        page.tab.click("summary")
        assert page.texts("#names bdi")[0] == HOSTILE
        page.tab.fill("#name", HOSTILE)
        page.tab.fill("#said", "lime")
        page.tab.click("#add")
        page.tab.wait_for_function("() => document.getElementById('told').textContent.includes('is known already')")
        page.tab.click("#names button")
        told(page, f"{HOSTILE} is not answered any more.")
        assert page.tab.evaluate("window.hacked") is None
        assert page.tab.evaluate("document.querySelectorAll('img').length") == 1, "the picture that was dropped"
        assert page.complaints == ["Failed to load resource: the server responded with a status of 409 (Conflict)"]


def test_what_goes_wrong_is_said(visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, None)) as place:
        page = visit(place)
        give(page, b"no picture")
        says(page, "That did not work")
        words = page.tab.locator("#remark").text_content()
        assert words.startswith("Picture 1 cannot be read (it is no picture of a known kind)")
        assert not page.tab.locator("#teach").is_visible()
        assert "started without a token" in page.tab.locator("#closed").text_content()
        give(page, picture("red"))
        says(page, "a red thing")
    give(page, picture("lime"))
    says(page, "That did not work")
    assert page.texts("#remark") == ["The server does not answer; is it still running?"]


def test_a_row_of_numbers_is_answered_where_the_model_takes_no_pictures(
    visit: Visit, world: World, classifier: ZeroShotClassifier
) -> None:
    with run(create_app(classifier, TOKEN)) as place:
        page = visit(place)
        assert not page.tab.locator("#drop").is_visible()
        assert page.tab.locator("#numbers-label").text_content() == "A row of 10 numbers"
        name, embedding = world.later[0], world.embeddings[world.later[0]]
        row = embedding @ world.map
        page.tab.fill("#numbers", "[" + ",\n ".join(map(str, row.tolist())) + "]")
        page.tab.click("#row button")
        page.tab.wait_for_function("() => document.querySelectorAll('#guesses li').length === 6")
        assert page.tab.locator("#verdict").text_content() != name
        page.tab.fill("#name", name)
        page.tab.fill("#said", " ".join(map(str, embedding.tolist())))
        page.tab.fill("#token", TOKEN)
        page.tab.click("#add")
        says(page, name)
        assert page.complaints == []
        page.tab.fill("#numbers", "1 2 x")
        page.tab.click("#row button")
        says(page, "That did not work")
        assert page.texts("#remark") == ["X is no number; a number is written like -0.25."]


def test_an_answer_to_an_older_picture_does_not_take_the_place_of_a_newer_ones(
    visit: Visit, painted: ZeroShotClassifier
) -> None:
    with run(create_app(painted, None)) as place:
        page = visit(place)
        held: list[Any] = []

        def hold_first(route: Any) -> None:
            held.append(route) if not held else route.continue_()

        page.tab.route("**/predict*", hold_first)
        give(page, picture("red"))
        give(page, picture("blue"))
        says(page, "a blue thing")
        with page.tab.expect_response("**/predict*"):
            held[0].continue_()
        page.tab.wait_for_timeout(50)
        assert page.texts("#verdict") == ["a blue thing"]


def test_a_script_that_the_page_did_not_bring_does_not_run(visit: Visit, painted: ZeroShotClassifier) -> None:
    """The second wall, behind text that is only ever text."""
    with run(create_app(painted, None)) as place:
        page = visit(place)
        page.tab.evaluate(
            """() => { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 1'>");
            const script = document.createElement("script"); script.textContent = "window.hacked = 2";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<p style='color: red' id='styled'>x</p>"); }"""
        )
        page.tab.wait_for_timeout(50)
        assert page.tab.evaluate("window.hacked") is None
        assert page.tab.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
        assert sum("Content Security Policy" in complaint for complaint in page.complaints) >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_out_of_a_phone(scheme: str, visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, TOKEN)) as place:
        page = visit(place, width=360, is_mobile=True, has_touch=True, color_scheme=scheme)
        give(page, picture("red", size=(2000, 40)))
        says(page, "a red thing")
        page.tab.fill("#name", "x" * 150)
        page.tab.fill("#said", "orange")
        page.tab.fill("#token", TOKEN)
        page.tab.click("#add")
        told(page, f"{'x' * 150} can be recognised now.")
        page.tab.click("summary")
        assert page.tab.evaluate(WIDEST) == 360


def test_every_field_has_its_words(visit: Visit, painted: ZeroShotClassifier) -> None:
    with run(create_app(painted, TOKEN)) as place:
        page = visit(place)
        labelled = "[...document.querySelectorAll('input, textarea')].every(field => field.labels.length === 1)"
        assert page.tab.evaluate(labelled)
        assert page.tab.evaluate("document.getElementById('answer').getAttribute('aria-live')") == "polite"
        assert page.tab.evaluate("document.getElementById('told').getAttribute('role')") == "status"
        assert page.tab.evaluate("document.getElementById('token').type") == "password"
        assert page.tab.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_their_ground(scheme: str) -> None:
    """Contrast of WCAG 2.2: 4.5 for text (1.4.3), 3 for edges of fields and for bars (1.4.11)."""
    html = (Path(unseen.serving.__file__).parent / "page.html").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", html, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", {"light": light, "dark": dark}[scheme]))
    for text in ("ink", "muted", "accent", "unseen", "wrong"):
        for ground in ("page", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for mark in ("edge", "seen", "unseen"):
        for ground in ("page", "panel"):
            assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
