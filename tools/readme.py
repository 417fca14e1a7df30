"""Run the demo and put what came out into README.md: python tools/readme.py [--from docs/demo.json].

Without --from the demo is run and docs/demo.json is written too. No figure in the README is typed in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STORED = ROOT / "docs" / "demo.json"
README = ROOT / "README.md"


def block(rows: list[dict[str, Any]]) -> str:
    """The README's section, from the rows that `unseen demo --json` printed."""
    from unseen.cli.runs import verdict

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    lines = [
        "| method | T1 | U | S | H | 95 % of H | AUSUC | pictures | width | steps | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["H_interval"]
        lines.append(
            f"| {row['method']} | "
            + " | ".join(percent(row[key]) for key in ("T1", "U", "S", "H"))
            + f" | {percent(low)}–{percent(high)} | {percent(row['AUSUC'])} | {row['test_pictures']} "
            f"| {row['hidden_width'] or '–'} | {row['steps'] or '–'} | {row['seconds']:.0f} |"
        )
    first, last = rows[0], rows[-1]
    versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    return "\n".join(
        [
            f"What came out: emoji of {first['unseen_classes']} kinds that training saw no picture of, among "
            f"{first['seen_classes']} that it did (percent; chance T1 {percent(first['chance_T1'])}):",
            "",
            *lines,
            "",
            f"**{verdict(last)}**",
            "",
            f"Protocol `{last['protocol']}`, split `{last['split']}`, seed {last['seed']}, settings chosen on "
            f"{last['selection']['chosen_on']}; {versions}, {last['device']}. Printed by `unseen demo --json`, put here by "
            "`python tools/readme.py`.",
        ]
    )


def with_block(readme: str, rows: list[dict[str, Any]]) -> str:
    """The README with its section replaced."""
    before, rest = readme.split("<!-- demo -->", 1)
    after = rest.split("<!-- /demo -->", 1)[1]
    return f"{before}<!-- demo -->\n{block(rows)}\n<!-- /demo -->{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="stored", type=Path, help="take these rows instead of running the demo")
    arguments = parser.parse_args()
    if arguments.stored is None:
        unseen = Path(sys.executable).with_name("unseen")
        out = subprocess.run([unseen, "demo", "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
        STORED.write_text(json.dumps(json.loads(out), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    rows = json.loads((arguments.stored or STORED).read_text())
    README.write_text(with_block(README.read_text(), rows))


if __name__ == "__main__":
    main()
