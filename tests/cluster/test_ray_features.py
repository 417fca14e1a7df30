"""Pictures on a Ray cluster: the files are those of a plain loop."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # before Ray is imported, which reads it then

import numpy as np
import pytest
from PIL import Image

from unseen import extraction
from unseen.encoders.backbones import EncoderChoice
from unseen.errors import RunError
from unseen.extraction import ClusterChoice, PartsJob, Speed, carry_out_parts, extract


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(100):
        path = folder / f"class {number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(6, 0).repeat(6, 1)).save(path)
    (folder / "class 0" / "broken.png").write_text("no picture")
    return folder


def test_a_cluster_writes_what_one_process_writes(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs for what a first command, which was stopped, has left over."""
    extract(pictures, tmp_path / "plain", EncoderChoice())

    def stop(speed: Speed) -> None:
        if speed.done > 32:
            raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "PART_BATCHES", 1)
    monkeypatch.setattr(extraction, "JOB_PARTS", 2)
    with pytest.raises(KeyboardInterrupt):
        extract(pictures, tmp_path / "out", EncoderChoice(), on_progress=stop)
    told: list[int] = []
    done = extract(
        pictures, tmp_path / "out", EncoderChoice(), cluster=ClusterChoice(workers=2), on_progress=lambda s: told.append(s.done)
    )
    assert (done.rows, len(done.problems)) == (100, 1)
    assert sorted(told)[-1] == 101
    assert len(told) == 2  # one part of four was there, and a job does two
    for name in ("features.safetensors", "features.json", "rows.csv", "skipped.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_machine_that_would_do_it_differently_is_refused(tmp_path: Path) -> None:
    job = PartsJob(EncoderChoice(), "another fingerprint", (), 1)
    with pytest.raises(RunError, match="cannot be seen from the machine"):
        carry_out_parts(job, tmp_path)
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(RunError, match="efficientnet-lite0 is another one here"):
        carry_out_parts(job, tmp_path)
