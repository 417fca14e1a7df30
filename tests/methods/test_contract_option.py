"""The contract test asked of one method by `--method`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_method_that_breaks_the_contract_is_found_out(tmp_path: Path) -> None:
    """The example with noise that no stream gives, asked alone from a folder elsewhere."""
    text = (ROOT / "examples" / "own_method" / "own_method.py").read_text()
    broken = text.replace('self.streams.normal("encoder noise", *mean.shape)', "torch.randn(mean.shape)")
    assert broken != text
    (tmp_path / "mine.py").write_text(broken.replace('name="cvae"', 'name="mine"'))
    asked = ["-k", "same_seed or scalars or shape", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", ROOT / "tests" / "contract", "--method", "mine:ENTRY", *asked],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = set(re.findall(r"^(PASSED|FAILED) \S+::(\w+)\[(\w+)-(?:linear|in \[0, 1\])\]", done.stdout, re.MULTILINE))
    assert told == {
        ("PASSED", "test_a_step_returns_scalars_without_graph", "mine"),
        ("FAILED", "test_same_seed_same_bits_other_seed_other_bits", "mine"),
    }
