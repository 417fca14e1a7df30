"""Type a command of `unseen`, in this process, and see what it leaves."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any, NamedTuple

import pytest

from unseen import cli


class Said(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value that is all of standard output."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    def refused(self, code: int) -> str:
        """The one sentence of a refusal, on one line of standard error and nowhere else."""
        lines = [line for line in self.err.splitlines() if not line.startswith(("training", "choosing", "synth", "solving"))]
        assert (self.code, self.out, len(lines)) == (code, "", 1), self
        assert "Traceback" not in self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


def unseen(*words: object, stdin: bytes | None = None) -> Said:
    """Type a command, with these bytes on its standard input."""
    out, err, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["unseen", *map(str, words)])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets it; this puts it back
        if stdin is not None:
            patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin)))
        try:
            cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Said(code, out.getvalue(), err.getvalue())
