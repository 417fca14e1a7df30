"""One iteration of TF-VAEGAN against the plain transcription of its formulas: `make bench` → benchmarks/results/speed.jsonl.

The plain form is the one that the tests prove equal (tests/methods/test_tfvaegan.py): autograd throughout, three critic passes,
double backward for the penalty, graphs for fakes, unfused Adam. Both see the same batches; runs alternate, and the
median of the paired ratios counts, so a machine whose speed drifts does not matter. `--published` adds AWA2's full width.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "methods"))

import torch  # noqa: E402
from test_tfvaegan import PlainTrainer, RecordedStreams, weights  # noqa: E402

from unseen.evaluation.protocol import versions  # noqa: E402
from unseen.methods.base import Clock  # noqa: E402
from unseen.methods.tfvaegan import PRESETS, TFVAEGAN  # noqa: E402
from unseen.scaling import ScaledView  # noqa: E402

PAIRS = 5
ROWS = ROOT / "benchmarks" / "results" / "speed.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--published", action="store_true", help="AWA2's full width too (4096)")
    arguments = parser.parse_args()
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    for hidden in (512, 1024, *((4096,) if arguments.published else ())):
        for loop in (0, 1):
            row = measure(hidden, loop)
            print(
                f"width {hidden}, loop {loop}: plain {row['plain_seconds']:.3f} s, ours {row['our_seconds']:.3f} s, "
                f"{row['ratio']:.1f} times as fast (from {row['ratio_min']:.1f} to {row['ratio_max']:.1f})",
                flush=True,
            )
            with ROWS.open("a") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")


def measure(hidden: int, loop: int) -> dict[str, object]:
    """Paired times of one iteration at AWA2's shape: d 2048, a 85, batch 64."""
    generator = torch.Generator().manual_seed(0)
    view = ScaledView(
        features=torch.rand(640, 2048, generator=generator),
        labels=torch.arange(640) % 40,
        embeddings=torch.nn.functional.normalize(torch.randn(50, 85, generator=generator), dim=1),
        names=tuple(f"class {k}" for k in range(50)),
        seen=torch.arange(40),
        unseen=torch.arange(40, 50),
        unit_interval=True,
    )
    settings = replace(PRESETS["awa2"][0], hidden=hidden, freeze_decoder=False)
    method = TFVAEGAN(view, settings, seed=0)
    streams = method.streams = RecordedStreams(seed=0)
    plain = PlainTrainer(weights(method), settings, view.embeddings, bernoulli=True)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        picked = torch.randperm(640, generator=generator)[:64]
        batches.append((view.features[picked], view.labels[picked]))
        return batches[-1]

    pairs = []
    for _ in range(PAIRS + 1):  # the first pair warms up
        batches.clear()
        streams.drawn.clear()
        ours = timed(lambda: method.step(draw, Clock(loop * 10, 10)))
        theirs = timed(lambda: plain.iteration(loop, batches, streams.drawn))
        pairs.append((theirs, ours))
    ratios = [theirs / ours for theirs, ours in pairs[1:]]
    return {
        "what": "TF-VAEGAN iteration, d 2048, a 85, batch 64",
        "hidden": hidden,
        "loop": loop,
        "pairs": PAIRS,
        "plain_seconds": statistics.median(theirs for theirs, _ in pairs[1:]),
        "our_seconds": statistics.median(ours for _, ours in pairs[1:]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "threads": torch.get_num_threads(),
        "command": "make bench",
        "versions": versions(),
    }


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
