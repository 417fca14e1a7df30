"""Pages opened in Chromium, with everything they asked for and complained about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import browser  # noqa: F401  # a fixture
from opened import Opened


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:  # noqa: F811
    """Open HTML in a tab of its own: `open_page(html, width=390, color_scheme="dark")`."""
    contexts = []

    def open_(html: str, width: int = 1200, **options: Any) -> Opened:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.tab.on("request", lambda request: opened.requests.append(request.url))
        opened.tab.on("console", lambda message: opened.complaints.append(message.text))
        opened.tab.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.tab.on("dialog", lambda dialog: (opened.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        opened.tab.goto(file.as_uri())
        opened.requests.remove(file.as_uri())
        return opened

    yield open_
    for context in contexts:
        context.close()
