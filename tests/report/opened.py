"""A page that a test opened in the browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Opened:
    """The tab, what the page asked for beside itself, and what it wrote on the console."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.tab.eval_on_selector_all(selector, "all => all.map(e => e.textContent)")
        return found
