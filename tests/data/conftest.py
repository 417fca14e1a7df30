"""A tiny data set, and a quick stand-in for starting an interpreter per .mat file: one that has scipy loaded and forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from unseen.data import ClassTable, Dataset, Pictures, Provenance, Split, matfile

FORKING = """
import importlib.util, io, json, os, signal, sys, time
sys.path += json.loads(sys.argv[2])
import scipy.io, safetensors.numpy
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
for line in sys.stdin:
    order = json.loads(line)
    process = os.fork()
    if process == 0:
        try:
            sys.stdin, sys.stdout = io.StringIO(order["job"]), open(order["out"], "w")
            child.main()
            sys.stdout.flush()
            os._exit(0)
        finally:
            os._exit(1)
    deadline, ended = time.monotonic() + order["seconds"], 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.002)
    if not ended:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
"""

Runner = Callable[[str, float], "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def forking_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Does what `matfile._run_child` does, child, limits and all, without half a second of imports for every file."""
    if not hasattr(os, "fork"):
        yield matfile._run_child
        return
    folders = [entry for entry in sys.path if Path(entry).is_absolute()]
    out = tmp_path_factory.mktemp("answers") / "answer"
    command = [sys.executable, "-I", "-c", FORKING, str(matfile.CHILD), json.dumps(folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(job: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
            out.write_bytes(b"")
            server.stdin.write(json.dumps({"job": job, "seconds": seconds, "out": str(out)}) + "\n")
            server.stdin.flush()
            code = json.loads(server.stdout.readline())
            if code is None:
                raise subprocess.TimeoutExpired(command, seconds)
            return subprocess.CompletedProcess(command, code, out.read_bytes())

        yield run
        server.stdin.close()


@pytest.fixture
def quick_reader(forking_reader: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `read_mat` use the forking stand-in."""
    monkeypatch.setattr(matfile, "_run_child", forking_reader)


@pytest.fixture
def tiny() -> Dataset:
    """Twelve pictures of four classes, three each; classes 2 and 3 are unseen and make up the group 'big'."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 3)
    split = Split.from_rows(
        "only",
        labels,
        train=np.array([0, 1, 3, 4]),
        test_seen=np.array([2, 5]),
        test_unseen=np.arange(6, 12),
        by_group=True,
    )
    return Dataset(
        name="tiny",
        features=rng.random((12, 5), np.float32),
        labels=labels,
        classes=ClassTable(
            names=("ant", "bee", "cat", "dog"),
            embeddings=rng.random((4, 3)),
            descriptions=("an ant", "", "a <b>cat</b>", "Ænima 🐕"),
            groups=("small", "small", "big", "big"),
        ),
        splits={"only": split},
        provenance=Provenance(source="drawn", feature_extractor="none", embedding_source="none", licence="none"),
        pictures=Pictures(sheet=b"\x00sheet", media_type="image/webp", tile=8, columns=2, rows=np.array([0, 7, 11])),
        attributions=("Pictures by nobody, CC0",),
    )
