"""Killed, stopped, crowded and starved: whatever happens to a run, going on gives what it would have given, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from unseen.storage import read_arrays

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks are POSIX")

STAGE = """
import errno, json, os, signal, sys, traceback
from pathlib import Path
import torch, torch._dynamo  # which the first step would load, in every child
torch.set_num_threads(1)
from unseen import cli, runs, storage, training
from unseen.methods.tfvaegan import TFVAEGAN
from unseen.report import assemble

def play(order):
    "One run of the command, with one mishap at the n-th time that something is done."
    left = order.get("count", 1)
    training.train.__kwdefaults__["checkpoint_seconds"] = order.get("checkpoint_seconds", 0)
    assemble.write_report = lambda path, *_: path.write_text("page")

    def strike(where, name=""):
        nonlocal left
        if where == order.get("where") and name == order.get("name", name):
            left -= 1
            if left == 0:
                if order["do"] == "ENOSPC":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.kill(os.getpid(), getattr(signal, order["do"]))

    between, save, replace, fit = TFVAEGAN._update_generator, storage.save_file, Path.replace, runs.weights_of

    def update(self, *rest):
        strike("between critic and generator")
        return between(self, *rest)

    def save_file(arrays, path, metadata):
        name = path.name[1:].rpartition(".")[0]
        save(arrays, path, metadata)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        strike("half written", name)
        path.write_bytes(whole)

    def rename(self, target):
        strike("before the rename", target.name)
        out = replace(self, target)
        strike("after the rename", target.name)
        return out

    def weights_of(outcome):
        strike("after the classifier")
        return fit(outcome)

    TFVAEGAN._update_generator, storage.save_file, Path.replace, runs.weights_of = update, save_file, rename, weights_of
    sys.argv = ["unseen", *order["words"]]
    cli.main()

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 70
        try:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            play(order)
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

QUICK = tuple(
    word
    for setting in ("hidden=8", "batch_size=16", "steps=32", "classifier_epochs=2", "embedding_noise=0.1")
    for word in ("--set", setting)
)
FIXED = ("--protocol", "fixed", *QUICK)
PAPER = ("--protocol", "paper", *QUICK)


@dataclass(frozen=True)
class Said:
    """Exit code, or minus the signal that killed; standard output; standard error."""

    code: int
    out: str
    err: str


Play = Callable[..., Said]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Runs the command in a process of its own, forked from one that has torch loaded, with a mishap if one is asked for."""
    folder = tmp_path_factory.mktemp("said")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-c", STAGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as stage:
        assert stage.stdin is not None
        assert stage.stdout is not None

        def run(*words: object, **mishap: Any) -> Said:
            order = {"words": [str(w) for w in words], "out": str(folder / "out"), "err": str(folder / "err"), **mishap}
            stage.stdin.write(json.dumps(order) + "\n")
            stage.stdin.flush()
            code = int(stage.stdout.readline())
            said = Said(code, (folder / "out").read_text(), (folder / "err").read_text())
            assert "Traceback" not in said.err, said.err
            return said

        yield run
        stage.stdin.close()


@pytest.fixture(scope="module")
def whole(play: Play, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert play("train", toy_folder, *FIXED, "--out", folder).code == 0
    return folder


def result(folder: Path) -> dict[str, Any]:
    """The result but for the time it took."""
    row = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in row.items() if not key.startswith(("seconds", "peak_memory"))}


def history(folder: Path) -> list[tuple[str, int]]:
    return [(entry["phase"], entry["step"]) for entry in map(json.loads, (folder / "history.jsonl").read_text().splitlines())]


def assert_equal(folder: Path, whole: Path) -> None:
    """Weights bit for bit, result, classes; and nothing left behind."""
    for name in ("weights.safetensors", "per_class.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert result(folder) == result(whole)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.iterdir())


def temporaries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.rglob(".*.*")]


# --- killed


@pytest.mark.parametrize(
    ("where", "name", "count"),
    [
        ("between critic and generator", None, 1),
        ("between critic and generator", None, 27),  # 5 steps an epoch
        ("half written", "checkpoint.safetensors", 1),
        ("half written", "checkpoint.safetensors", 3),
        ("before the rename", "checkpoint.safetensors", 2),
        ("after the rename", "checkpoint.safetensors", 2),
        ("after the rename", "checkpoint.safetensors", 4),  # the last one
        ("after the classifier", None, 1),
        ("half written", "weights.safetensors", 1),
        ("before the rename", "task.json", 1),
        ("before the rename", "result.json", 1),
        ("after the rename", "result.json", 1),
    ],
)
def test_a_killed_run_resumed_equals_one_that_was_not(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path, where: str, name: str | None, count: int
) -> None:
    run = ("train", toy_folder, *FIXED, "--out", tmp_path / "run")
    mishap = {"where": where, "count": count, "do": "SIGKILL"} | ({"name": name} if name else {})
    assert play(*run, **mishap).code == -signal.SIGKILL
    if where in ("half written", "before the rename"):
        assert temporaries(tmp_path / "run")
    assert play(*run, "--resume").code == 0
    assert_equal(tmp_path / "run", whole)
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_a_kill_in_the_middle_of_a_line_of_history_costs_no_other_line(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path
) -> None:
    run = ("train", toy_folder, *FIXED, "--out", tmp_path / "run")
    play(*run, where="between critic and generator", count=25, do="SIGKILL")
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write('{"phase": "training on al')
    assert play(*run, "--resume").code == 0
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_checkpoints_change_nothing(play: Play, whole: Path, toy_folder: Path, tmp_path: Path) -> None:
    run = ("train", toy_folder, *FIXED, "--out", tmp_path / "run")
    assert play(*run, checkpoint_seconds=1e9).code == 0
    assert_equal(tmp_path / "run", whole)
    assert history(whole) == [("training on all seen rows", step) for step in (10, 20, 30, 32)]


def test_a_selection_killed_again_and_again_chooses_the_same(play: Play, toy_folder: Path, tmp_path: Path) -> None:
    words = ("train", toy_folder, *QUICK, "--set", "steps=12", "--out")
    assert play(*words, tmp_path / "whole", checkpoint_seconds=1e9).code == 0
    run = (*words, tmp_path / "run")
    kill = {"do": "SIGKILL"}
    # 12 steps: generators of a fold are stored after 3, 6 and 12, checkpoints written after 3, 6, 10 and 12
    assert play(*run, where="between critic and generator", count=17, **kill).code == -9
    assert play(*run, "--resume", where="half written", name="checkpoint.safetensors", count=2, **kill).code == -9
    assert play(*run, "--resume", where="after the rename", name="step12.safetensors", **kill).code == -9
    assert play(*run, "--resume", where="after the rename", name="checkpoint.safetensors", count=4, **kill).code == -9
    assert play(*run, "--resume", where="half written", name="step6.safetensors", count=2, **kill).code == -9
    stopped = play(*run, "--resume", where="between critic and generator", count=20, do="SIGTERM")
    assert stopped.code == 130
    assert "of 12; to go on, type: unseen train" in stopped.err
    # 9 trainings of 12 steps on folds; this one dies in the training that follows
    assert play(*run, "--resume", where="after the rename", name="weights.safetensors", **kill).code == -9
    last = play(*run, "--resume")
    assert last.code == 0
    assert_equal(tmp_path / "run", tmp_path / "whole")
    keys = history(tmp_path / "run")
    assert len(keys) == len(set(keys))
    assert set(history(tmp_path / "whole")) <= set(keys)
    for phase in dict(keys):
        steps = [step for p, step in keys if p == phase]
        assert steps == sorted(steps)


# --- stopped


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_says_what_to_type_and_goes_on(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path, number: str
) -> None:
    folder = tmp_path / "a run"
    run = ("train", toy_folder, *FIXED, "--out", folder)
    stopped = play(*run, where="between critic and generator", count=23, do=number, checkpoint_seconds=1e9)
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1] == (
        f"training was stopped; it is saved up to step 23 of 32; to go on, type: "
        f"unseen train {toy_folder} {' '.join(FIXED)} --out '{folder}' --resume"
    )
    assert play(*run, "--resume").code == 0
    assert_equal(folder, whole)
    assert [step for _, step in history(folder)] == [10, 20, 23, 30, 32]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop_after_the_training_says_what_to_type_too(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path, number: str
) -> None:
    run = ("train", toy_folder, *FIXED, "--out", tmp_path / "run", "--resume")
    stopped = play(*run, where="after the classifier", do=number)
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1].startswith("stopped; to go on, type: unseen train ")
    assert stopped.err.count("--resume") == 1
    assert play(*run).code == 0
    assert_equal(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def whole_paper(play: Play, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A paper run that nothing happened to; test rows are scored after steps 10, 20, 30 and 32."""
    folder = tmp_path_factory.mktemp("whole-paper") / "run"
    assert play("train", toy_folder, *PAPER, "--out", folder).code == 0
    return folder


@pytest.mark.parametrize(
    "mishaps",
    [
        [{"where": "between critic and generator", "count": 3, "do": "SIGINT"}],
        [{"where": "between critic and generator", "count": 23, "do": "SIGTERM", "checkpoint_seconds": 1e9}],
        # scored after step 20, but the last checkpoint is older, or there is none
        [{"where": "after the rename", "name": "paper.safetensors", "count": 2, "do": "SIGKILL"}],
        [{"where": "after the rename", "name": "paper.safetensors", "count": 2, "do": "SIGKILL", "checkpoint_seconds": 1e9}],
        [{"where": "half written", "name": "paper.safetensors", "count": 3, "do": "SIGKILL"}],
        [
            {"where": "between critic and generator", "count": 25, "do": "SIGTERM"},
            {"where": "before the rename", "name": "paper.safetensors", "count": 2, "do": "SIGKILL"},
            {"where": "after the classifier", "do": "SIGTERM"},
        ],
    ],
)
def test_a_stopped_paper_run_goes_on_and_comes_to_the_same_result(
    play: Play, whole_paper: Path, toy_folder: Path, tmp_path: Path, mishaps: list[dict[str, Any]]
) -> None:
    run = ("train", toy_folder, *PAPER, "--out", tmp_path / "run", "--resume")
    for mishap in mishaps:
        stopped = play(*run, **mishap)
        assert stopped.code == (-signal.SIGKILL if mishap["do"] == "SIGKILL" else 130)
        if mishap["where"] == "between critic and generator":
            assert "training was stopped; it is saved up to step " in stopped.err
    assert play(*run).code == 0
    assert_equal(tmp_path / "run", whole_paper)


def test_a_paper_run_whose_best_is_lost_is_refused(play: Play, toy_folder: Path, tmp_path: Path) -> None:
    """The checkpoint alone begins after test rows that were scored before, and the best of them may be the result."""
    folder = tmp_path / "run"
    run = ("train", toy_folder, *PAPER, "--out", folder, "--resume")
    play(*run, where="after the rename", name="checkpoint.safetensors", count=3, do="SIGKILL")
    kept = folder / "paper.safetensors"
    good = kept.read_bytes()
    kept.write_bytes(good[:-5])
    assert f"{kept} is damaged" in play(*run).err
    kept.unlink()
    refused = play(*run)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines()[-1] == (
        f"error: {kept} does not hold what was scored up to step 30, where the checkpoint goes on; "
        "restore it or train into another folder"
    )


def test_a_signal_from_outside_and_a_second_process_in_the_same_folder(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path
) -> None:
    """The command itself, not forked: the one test that pays for starting it."""
    folder = tmp_path / "run"
    words = ("train", str(toy_folder), *FIXED, "--set", "steps=1000000", "--out", str(folder))
    program = "import sys\nfrom unseen.cli import main\nsys.argv = ['unseen', *sys.argv[1:]]\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not ((folder / "history.jsonl").exists() and history_begun(folder)):
            time.sleep(0.05)
        second = play(*words, "--resume")
        assert (second.code, second.out) == (1, "")
        assert second.err == f"error: another process is working in {folder}; wait for it or choose another folder\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "of 1000000; to go on, type: unseen train" in err
    assert (folder / "checkpoint.safetensors").exists()
    assert not (folder / ".lock").exists()


def history_begun(folder: Path) -> bool:
    return b"\n" in (folder / "history.jsonl").read_bytes()


# --- starved


@pytest.mark.parametrize(
    ("where", "name", "count", "kept"),
    [
        ("half written", "checkpoint.safetensors", 3, 20),
        ("before the rename", "checkpoint.safetensors", 3, 20),
        ("half written", "weights.safetensors", 1, 32),
        ("before the rename", "history.jsonl", 2, 32),
    ],
)
def test_a_full_disk_is_a_sentence_and_the_last_good_file_is_as_it_was(
    play: Play, whole: Path, toy_folder: Path, tmp_path: Path, where: str, name: str, count: int, kept: int
) -> None:
    folder = tmp_path / "run"
    run = ("train", toy_folder, *FIXED, "--out", folder)
    full = play(*run, where=where, name=name, count=count, do="ENOSPC")
    assert full.code == 1
    assert full.err.splitlines()[-1].startswith(f"error: cannot write {folder / name}: No space left on device; ")
    assert temporaries(folder) == []
    assert read_arrays(folder / "checkpoint.safetensors")[1]["step"] == str(kept)
    assert play(*run, "--resume").code == 0
    assert_equal(folder, whole)


# --- refused


def test_a_run_in_progress_resumed_with_other_settings_or_a_damaged_checkpoint_is_refused(
    play: Play, toy_folder: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = ("train", toy_folder, *FIXED, "--out", folder, "--resume")
    play(*run, where="after the rename", name="checkpoint.safetensors", count=2, do="SIGKILL")
    for words, what in ((("--seed", 1), "seed"), (("--set", "lr=0.5"), "hyperparameters, settings_from")):
        refused = play(*run, *words)
        assert (refused.code, refused.out) == (1, "")
        assert f"the run in {folder} was started with another {what};" in refused.err
    good = (folder / "checkpoint.safetensors").read_bytes()
    for damaged in (good[:-5], b"", bytes(byte ^ (place == len(good) - 9) for place, byte in enumerate(good))):
        (folder / "checkpoint.safetensors").write_bytes(damaged)
        refused = play(*run)
        assert (refused.code, refused.out) == (1, "")
        assert f"{folder / 'checkpoint.safetensors'} is damaged" in refused.err
    (folder / "checkpoint.safetensors").write_bytes(good)
    assert play(*run).code == 0
    assert_equal(folder, whole)
