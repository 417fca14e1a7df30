"""What is typed: options that several commands have, what they hold, and the command as it was typed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from unseen.errors import SettingsError

DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="A built-in name (emoji), a folder or a file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting.")]
Threads = Annotated[int, typer.Option(help="Of each run; results depend on it in the last bits.")]
EngineName = Annotated[str, typer.Option(help="local or ray.")]
Workers = Annotated[int | None, typer.Option(help="Runs at a time; cores divided by threads if not given.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster that runs already.")]


def pairs(settings: list[str]) -> Iterator[tuple[str, str]]:
    """Names and values of `--set NAME=VALUE`; `SettingsError` for anything else."""
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {text!r} is not of the form NAME=VALUE; write for example --set lr=0.001")
        yield name.strip(), value.strip()


def file_name(text: str) -> str:
    """Text, which may hold a stranger's data set's name, as the name of a folder here and nowhere else."""
    return re.sub(r"[^\w.+-]+", "_", text).lstrip(".")


def command_line() -> str:
    """The command as it was typed, to be typed again."""
    return shlex.join(["unseen", *sys.argv[1:]])
