"""How large the page of a bench is and how fast it opens: python benchmarks/report.py → benchmarks/results/report.jsonl.

Five methods, six data sets of the usual numbers of classes, five seeds, all made up (tests/report/bench_folder.py), opened in
headless Chromium from disk. Two times are taken from the click: until the browser says that the page is loaded, tables and
filters ready, and until the first figure is drawn for a reader who goes straight to the figures.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "report"))

from bench_folder import DATASETS, METHODS, make_bench  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from unseen.evaluation.protocol import versions  # noqa: E402
from unseen.report.bench_assemble import write_bench_report  # noqa: E402

TIMES = 7
SEEDS = 5
LONGEST, LARGEST = 3.0, 15_000_000
"""Seconds until the page is open, and bytes, that it is to stay below."""
ROWS = ROOT / "benchmarks" / "results" / "report.jsonl"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_bench(Path(temporary) / "bench", seeds=SEEDS)
        begun = time.perf_counter()
        page = write_bench_report(folder, "unseen report bench")
        row = {"write_seconds": time.perf_counter() - begun, "bytes": page.stat().st_size, **opened(page)}
    row |= {
        "what": "page of a bench",
        "methods": len(METHODS),
        "datasets": len(DATASETS),
        "seeds": SEEDS,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "command": "python benchmarks/report.py",
        "versions": versions(),
    }
    within = row["loaded_seconds"] < LONGEST and row["bytes"] < LARGEST
    print(
        f"{row['methods']} methods, {row['datasets']} data sets, {row['seeds']} seeds: {row['bytes'] / 1e6:.1f} MB, written in "
        f"{row['write_seconds']:.1f} s; loaded after {row['loaded_seconds']:.2f} s (at most {row['loaded_seconds_max']:.2f}), "
        f"first figure after {row['drawn_seconds']:.2f} s (at most {row['drawn_seconds_max']:.2f}): "
        f"{'within' if within else 'ABOVE'} {LONGEST:.0f} s and {LARGEST / 1e6:.0f} MB"
    )
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps({**row, "within": within}, sort_keys=True) + "\n")


def opened(page: Path) -> dict[str, Any]:
    """Medians over several openings, each in a fresh profile."""
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox", "--disable-gpu"])
        times = [once(browser, page) for _ in range(TIMES + 1)][1:]  # the first one warms up the disk
        row: dict[str, Any] = {"chromium": browser.version, "openings": TIMES}
        browser.close()
    for name, found in zip(("loaded", "drawn"), zip(*times, strict=True), strict=True):
        row |= {f"{name}_seconds": statistics.median(found), f"{name}_seconds_max": max(found)}
    return row


def once(browser: Browser, page: Path) -> tuple[float, float]:
    """Seconds until loaded, and until the first figure is drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    begun = time.perf_counter()
    tab.goto(page.as_uri())
    loaded = time.perf_counter() - begun
    tab.evaluate("location.hash = 'figures'")
    tab.wait_for_selector(".plot svg.main-svg", state="attached")
    drawn = time.perf_counter() - begun
    context.close()
    return loaded, drawn


if __name__ == "__main__":
    main()
