"""What must not be in the source: ways to run what a file says, and names that nobody uses."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from unseen import ZeroShotClassifier

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "unseen"
PROGRAMS = [path for folder in ("src", "benchmarks", "examples", "tools") for path in (ROOT / folder).rglob("*.py")]

DANGEROUS = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",  # modules
    "eval", "exec", "compile", "__import__",  # built-in functions
    "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "numpy.load", "np.load",
}  # fmt: skip
ALLOWED = {("encoders/images.py", "torch.load")}
"""The one exception: a packaged backbone's weights, with weights_only=True, after their checksum matched."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression that is just that, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def dangers(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)
        elif isinstance(node, ast.Call):
            yield dotted(node.func), node
            yield from (
                ("allow_pickle", node) for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"
            )
            yield from (("shell", node) for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False")


def test_nothing_in_the_source_runs_what_a_file_says() -> None:
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        for name, node in dangers(ast.parse(path.read_text())):
            if name not in DANGEROUS | {"allow_pickle", "shell"}:
                continue
            assert (place, name) in ALLOWED, f"{place}:{getattr(node, 'lineno', 0)} uses {name}"
            assert "weights_only=True" in ast.unparse(node), f"{place}: {name} without weights_only=True"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "x = eval(t)",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert {name for name, _ in dangers(ast.parse(line))} & (DANGEROUS | {"allow_pickle"})


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, constants and methods that others are meant to use."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (child.name for child in node.body if isinstance(child, ast.FunctionDef))
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_public_name_is_used() -> None:
    """By the package, its examples or its measurements: a name that only its test knows is dead."""
    used: Counter[str] = Counter()
    for path in PROGRAMS:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                    used[name] += 1
                case ast.Constant(value=str(text)) if text.isidentifier():
                    used[text] += 1  # __all__, getattr
    framework = {"forward"}  # called by torch
    framework |= {name for name in vars(ZeroShotClassifier) if not name.startswith("_")}  # by scikit-learn, and by users
    dead = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in SOURCE.rglob("*.py")
        for name in public_names(ast.parse(path.read_text()))
        if not name.startswith("_") and not used[name] and name not in framework
    ]
    assert dead == []


def imported(path: Path) -> Iterator[str]:
    """Modules that a program imports, at the top or inside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_parts_of_networks_import_no_method() -> None:
    """Methods import parts, so a part that imported back could only be loaded after them."""
    parts = sorted((SOURCE / "nn").glob("*.py"))
    assert len(parts) > 5
    for path in parts:
        assert not [name for name in imported(path) if name.startswith("unseen.methods")], path


def test_every_public_thing_has_a_docstring() -> None:
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if tree.body:
            assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
