"""`import unseen` is quick: what is heavy is loaded by the parts that need it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "import unseen",
        "from unseen.data import validate, native, opening, xlsa17",
        "from unseen.experiments import aggregate, literature, results, tables",
    ],
)
def test_importing_loads_neither_torch_nor_scikit_learn_nor_scipy(statement: str) -> None:
    program = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(out.stdout))
    assert "unseen.data.dataset" in loaded
    assert loaded.isdisjoint({"torch", "sklearn", "scipy", "pandas", "plotly", "typer", "jinja2", "onnxruntime", "pyarrow"})
