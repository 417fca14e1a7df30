"""Pictures of the server's page for the documents, docs/images/serve-*.png: needs the extras images, text, serve and dev, and
Chromium.

The page learns `wine glass`, of which it had neither a picture nor a word, from the keywords that Unicode has for it, and then
recognises a picture that it took for something else. Everything is drawn from a seed; only fonts depend on the machine.
"""

from __future__ import annotations

import io
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from unseen import ZeroShotClassifier, open_dataset
from unseen.data import Dataset
from unseen.serving import Limits, create_app
from unseen.serving.running import address, listening, serve

IMAGES = Path(__file__).parents[1] / "docs" / "images"
NEW, ROW = "wine glass", 1216
"""The class that is taught, and the picture of it that is looked at."""
LARGEST = 150_000
"""Bytes of a screenshot."""


def main() -> None:
    emoji = open_dataset("emoji")
    model, words = fitted(emoji)
    token, limits, ready = secrets.token_urlsafe(), Limits(), threading.Event()
    at = listening("127.0.0.1", 0)
    place = address(at)
    threading.Thread(target=serve, args=(create_app(model, token, limits), at, limits, ready.set), daemon=True).start()
    ready.wait(30)
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for name, size, options in (
            ("light", (1000, 700), {"color_scheme": "light"}),
            ("dark", (1000, 700), {"color_scheme": "dark"}),
            ("phone", (390, 700), {"color_scheme": "light", "is_mobile": True}),
        ):
            path = IMAGES / f"serve-{name}.png"
            path.write_bytes(small(taught(browser, place, tile(emoji, ROW), words, token, size, options)))
            print(f"{path}: {path.stat().st_size} bytes")
            assert path.stat().st_size < LARGEST
        browser.close()


def fitted(emoji: Dataset) -> tuple[ZeroShotClassifier, str]:
    """A calibrated classifier of all emoji but one, and what is said of that one."""
    view = emoji.training_view()
    names = np.array(view.classes.names)
    words = dict(zip(names.tolist(), view.classes.descriptions, strict=True))
    said = words.pop(NEW)
    model = ZeroShotClassifier("class-gaussian", protocol="blind", image_encoder="efficientnet-lite0", threads=1)
    return model.fit(view.features, names[view.labels], classes=words), said.removeprefix(f"{NEW}: ")


def tile(emoji: Dataset, row: int) -> bytes:
    """The thumbnail of a row, as a file of its own."""
    pictures = emoji.pictures
    assert pictures is not None
    left, top = (pictures.tile * k for k in pictures.place[row])
    sheet = Image.open(io.BytesIO(pictures.sheet)).convert("RGB")
    crop = sheet.crop((left, top, left + pictures.tile, top + pictures.tile)).resize((256, 256), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    crop.save(file, "PNG")
    return file.getvalue()


def taught(
    browser: Browser, place: str, picture: bytes, words: str, token: str, size: tuple[int, int], options: dict[str, Any]
) -> bytes:
    """The page after the class was taught; it is removed again afterwards."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, reduced_motion="reduce", device_scale_factor=1.5, **options)
    tab = context.new_page()
    tab.goto(place)
    tab.set_input_files("#file", {"name": "picture.png", "mimeType": "image/png", "buffer": picture})
    tab.wait_for_selector("#guesses li")
    print("before:", tab.locator("#verdict").text_content())
    for field, said in (("name", NEW), ("said", words), ("token", token)):
        tab.fill(f"#{field}", said)
    tab.click("#add")
    tab.wait_for_function("name => document.getElementById('verdict').textContent === name", arg=NEW)
    tab.wait_for_function("() => document.getElementById('told').textContent.endsWith('now.')")
    tab.evaluate("document.activeElement.blur()")
    tab.wait_for_timeout(200)
    taken = tab.screenshot(full_page=True)
    tab.click("summary")
    tab.get_by_label(f"remove {NEW}").click()
    tab.wait_for_function("() => document.getElementById('told').textContent.endsWith('any more.')")
    context.close()
    return taken


def small(screenshot: bytes) -> bytes:
    """With a palette: flat colours need no more."""
    file = io.BytesIO()
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
