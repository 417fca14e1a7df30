"""A Ray cluster of two nodes, both on this machine: the rows are those of a plain loop, whatever is killed meanwhile."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

# Only who has the token may use the clusters that are started here. Ray reads this when it is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

import pytest
from processes import PATIENCE, Rows, holder, killing, rows_in, trains, until
from ray.cluster_utils import Cluster

from unseen.errors import RunError, SettingsError
from unseen.experiments.bench import open_folder, work_through
from unseen.experiments.engines import GPU_SHARE, TRIES, Done, RayEngine
from unseen.experiments.grid import Grid, expand, read_grid
from unseen.experiments.jobs import Job, carry_out, failure
from unseen.runs import in_use, locked
from unseen.storage import read_json

GRID = """
methods = {methods}
datasets = [{toy!r}]
seeds = {seeds}
protocols = ["fixed"]
[settings.tfvaegan]
hidden = 8
latent = 4
steps = {steps}
classifier_epochs = 2
"""


@pytest.fixture(scope="module")
def grid_file(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generative method that trains for some seconds, and a closed-form one."""
    path = tmp_path_factory.mktemp("grid") / "grid.toml"
    path.write_text(GRID.format(methods=["tfvaegan", "prototype"], toy=str(toy_folder), seeds=2, steps=300))
    return path


@pytest.fixture(scope="module")
def jobs(grid_file: Path, toy_folder: Path) -> tuple[Job, ...]:
    """Those of the grid, and a choice with a run that needs it."""
    return expand(read_grid(grid_file), "") + expand(Grid(("prototype",), (str(toy_folder),)), "")


@pytest.fixture(scope="module")
def expected(jobs: tuple[Job, ...], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of jobs that were done here, one after the other."""
    out = tmp_path_factory.mktemp("plain") / "bench"
    open_folder(out, "")
    assert all(carry_out(job, out) for job in jobs)
    return rows_in(out, jobs)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node, with one CPU and, as far as Ray knows, one GPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty benchmark's folder."""
    open_folder(tmp_path / "bench", "")
    return tmp_path / "bench"


def at_work_on(node: Any, jobs: tuple[Job, ...], out: Path) -> int | None:
    """The process of a node that works on one of the jobs."""
    [raylet] = node.all_processes["raylet"]
    for job in jobs:
        pid = holder(job.folder(out))
        if pid is not None and f"PPid:\t{raylet.process.pid}\n" in Path(f"/proc/{pid}/status").read_text():
            return pid
    return None


def sentences(jobs: tuple[Job, ...], out: Path, engine: RayEngine[Job]) -> dict[str, str | None]:
    """What each job came to."""
    ends = list(work_through(jobs, out, engine))
    assert len({end.job.id for end in ends}) == len(ends)
    return {end.job.id: end.sentence for end in ends}


# ------------------------------------------------------------------------------------------------------------- two nodes


def test_rows_do_not_depend_on_a_worker_or_a_node_that_was_lost(
    cluster: Cluster, jobs: tuple[Job, ...], expected: Rows, out: Path
) -> None:
    """Both while they worked; the jobs come in another order, too."""
    long = tuple(job for job in jobs if job.description["method"] == "tfvaegan")
    second = cluster.add_node(num_cpus=1)
    engine = RayEngine(carry_out, out, cluster.address, 1, 1)
    assert engine.slots == 4
    lost = []

    def strike() -> None:
        os.kill(until(lambda: at_work_on(cluster.head_node, long, out)), signal.SIGKILL)
        lost.append("worker")

    def strike_harder() -> None:
        until(lambda: at_work_on(second, long, out))
        cluster.remove_node(second, allow_graceful=False)
        lost.append("node")

    strikes = [threading.Thread(target=strike), threading.Thread(target=strike_harder)]
    for thread in strikes:
        thread.start()
    ends = sentences((*long, *(job for job in jobs[::-1] if job not in long)), out, engine)
    for thread in strikes:
        thread.join()
    assert sorted(lost) == ["node", "worker"]
    assert set(ends.values()) == {None}
    assert rows_in(out, jobs) == expected


def test_a_job_that_kills_every_worker_fails_alone(cluster: Cluster, jobs: tuple[Job, ...], expected: Rows, out: Path) -> None:
    description = jobs[0].description
    endless = replace(jobs[0], description={**description, "recipe": {**description["recipe"], "steps": 10_000_000}})
    other = next(job for job in jobs if job.description["method"] == "prototype" and job.needs is None and job.kind == "run")
    with killing(endless.folder(out), TRIES) as killed:
        ends = sentences((endless, other), out, RayEngine(carry_out, out, cluster.address, 1, 1))
    assert len(killed) == TRIES
    assert str(ends[endless.id]).startswith(f"its worker was lost {TRIES} times; the last time: The worker died")
    assert failure(endless, out) == ends[endless.id]
    assert ends[other.id] is None
    assert rows_in(out, (other,)) == {other.id: expected[other.id]}


def test_each_job_has_a_process_its_threads_and_its_share_of_a_gpu(cluster: Cluster, jobs: tuple[Job, ...], out: Path) -> None:
    def look(job: Job, folder: Path) -> bool:
        """What a worker sees. Defined here, it travels by value: a worker knows nothing of tests."""
        import json
        import os

        import ray

        from unseen.evaluation.cost import peak_memory

        seen = {
            "process": os.getpid(),
            "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
            "gpus": ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "memory": peak_memory(),
        }
        (folder / f"{job.id}.json").write_text(json.dumps(seen))
        return True

    much = bytearray(2**30)
    much[:: 2**12] = b"x" * len(much[:: 2**12])
    on_gpu = replace(jobs[0], description={**jobs[0].description, "device": "cuda"})
    engine = RayEngine(look, out, cluster.address, 1, 1)
    try:
        for job in (on_gpu, jobs[1]):
            engine.submit(job)
            assert engine.next_done(PATIENCE) == Done(job)
    finally:
        engine.close()
    gpu, cpu = (read_json(out / f"{job.id}.json") for job in (on_gpu, jobs[1]))
    assert gpu["process"] != cpu["process"]
    assert gpu["OMP_NUM_THREADS"] == cpu["OMP_NUM_THREADS"] == "1"
    assert (gpu["gpus"], gpu["visible"]) == (GPU_SHARE, "0")
    assert cpu["gpus"] == 0
    assert max(gpu["memory"], cpu["memory"]) < len(much)


def test_a_job_that_no_machine_can_take_waits_and_that_is_told(cluster: Cluster, jobs: tuple[Job, ...], out: Path) -> None:
    engine = RayEngine(carry_out, out, cluster.address, 1, 2)
    try:
        with pytest.warns(UserWarning, match="no machine of the Ray cluster has 2 CPUs; such jobs wait until one joins"):
            engine.submit(jobs[0])
        assert engine.next_done(0.5) is None
        second = cluster.add_node(num_cpus=2)
        assert engine.next_done(PATIENCE) == Done(jobs[0])
        assert jobs[0].done(out)
    finally:
        engine.close()
        cluster.remove_node(second)


def test_a_job_that_another_process_is_at_is_left_for_later(cluster: Cluster, jobs: tuple[Job, ...], out: Path) -> None:
    job = jobs[1]
    job.folder(out).mkdir(parents=True)
    engine = RayEngine(carry_out, out, cluster.address, 1, 1)
    try:
        with locked(job.folder(out)):
            engine.submit(job)
            assert engine.next_done(PATIENCE) == Done(job, busy=True)
    finally:
        engine.close()


def test_a_folder_that_workers_do_not_see_ends_the_work_with_one_sentence(
    cluster: Cluster, jobs: tuple[Job, ...], out: Path
) -> None:
    engine = RayEngine(carry_out, out.parent / "elsewhere", cluster.address, 1, 1)
    with pytest.raises(RunError, match="elsewhere cannot be seen from the machine that does the work; choose a folder") as stop:
        list(work_through(jobs, out, engine))
    assert len(str(stop.value).splitlines()) == 1
    assert not (out / "tasks").exists()


# ----------------------------------------------------------------------------------------------- commands and addresses


def test_ctrl_c_saves_and_another_cluster_goes_on_from_there(cluster: Cluster, toy_folder: Path, tmp_path: Path) -> None:
    """The first cluster is the command's own. Ray looks for signals once a second only: training must last for some."""
    grid_file, plain, out = tmp_path / "grid.toml", tmp_path / "plain", tmp_path / "bench"
    grid_file.write_text(GRID.format(methods=["prototype", "tfvaegan"], toy=str(toy_folder), seeds=1, steps=2000))
    own = done, long = expand(read_grid(grid_file), "")
    open_folder(plain, "")
    assert all(carry_out(job, plain) for job in own)
    words = [Path(sys.executable).with_name("unseen"), "bench", grid_file, "--out", out, "--engine", "ray", "--workers", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as first:
        until(lambda: trains(long.folder(out)))
        os.killpg(first.pid, signal.SIGINT)
        printed, said = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130, said
    assert printed == ""
    assert "Traceback" not in said
    assert "what is done is kept; to go on, type: unseen bench" in said.splitlines()[-1]
    assert done.done(out)
    assert (long.folder(out) / "checkpoint.safetensors").exists()
    assert not long.done(out)
    until(lambda: not in_use(long.folder(out)))
    before = sys.stdout, signal.getsignal(signal.SIGTERM)
    engine = RayEngine(carry_out, out, cluster.address, 1, 1)
    assert signal.getsignal(signal.SIGTERM) == before[1]
    assert sentences(own, out, engine)[long.id] is None
    assert (sys.stdout, signal.getsignal(signal.SIGTERM)) == before
    assert rows_in(out, own) == rows_in(plain, own)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-machine.invalid:6379"])
def test_an_address_where_nobody_answers_is_refused_at_once(address: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(RunError, match=f"no Ray cluster answers at {address} .*; start one by: ray start --head") as refusal:
        RayEngine(carry_out, tmp_path, address, 1, 1)
    assert time.monotonic() - begun < 20
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("address", ["local", "ray://127.0.0.1:10001", "head:port", ":6379", "1:2:3/4:5"])
def test_an_address_that_is_none_is_one_sentence(address: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="neither HOST:PORT nor auto"):
        RayEngine(carry_out, tmp_path, address, 1, 1)
