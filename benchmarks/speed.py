"""What a method computes against the plain transcription of its formulas: `make bench` → benchmarks/results/speed.jsonl.

The plain forms are those that the tests prove equal. TF-VAEGAN's (tests/methods/test_tfvaegan.py): autograd throughout, three
critic passes, double backward for the penalty, graphs for fakes. GSMFlow's and DFCA's (tests/methods/test_gsmflow.py,
test_dfca.py): one first layer for feature and condition, the condition computed for each row, all pairs of rows and classes in
the relation network, two backward passes; synthesis class by class. BSeGN's (test_bsegn.py): as TF-VAEGAN's, and a loop over
classes. SDDN's (test_sddn.py): real, rebuilt and synthetic rows each by themselves, all pairs in the relation network; class by
class too. Adam is unfused in all. Both forms see the same batches; runs alternate, seconds are of the processor, and the median
of the paired ratios counts, so a machine whose speed drifts does not matter. `--published` adds AWA2's full widths.

Of BSeGN's final classifier the peak memory is measured too: with all represented rows held, and with a quarter of them.
`features` has no plain form: it says how many pictures a second `unseen features` encodes here, by the clock on the wall.
Nor has `classes`: in how many seconds `add_classes` brings 10 classes to 200, on two threads. `answers` compares
`predict` with the matrix products that it cannot do without, in plain numpy, by the clock on the wall.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("methods", "nn", "helpers")]

import numpy as np  # noqa: E402
import test_bsegn  # noqa: E402
import test_dfca  # noqa: E402
import test_gsmflow  # noqa: E402
import test_sddn  # noqa: E402
import torch  # noqa: E402
from test_critic import plain_penalty  # noqa: E402
from test_tfvaegan import PlainTrainer, RecordedStreams, weights  # noqa: E402

from unseen import ZeroShotClassifier, represented  # noqa: E402
from unseen.encoders.backbones import EncoderChoice  # noqa: E402
from unseen.evaluation.protocol import versions  # noqa: E402
from unseen.extraction import extract  # noqa: E402
from unseen.final_classifier import classifier_rows, fit_final_classifier  # noqa: E402
from unseen.linear import LinearScores  # noqa: E402
from unseen.methods import bsegn, dfca, gsmflow, sddn  # noqa: E402
from unseen.methods.base import ClassStreams, Clock  # noqa: E402
from unseen.methods.tfvaegan import PRESETS, TFVAEGAN  # noqa: E402
from unseen.nn.critic import Critic, update_critic  # noqa: E402
from unseen.nn.learning import adam  # noqa: E402
from unseen.recipe import Recipe  # noqa: E402
from unseen.scaling import ScaledView  # noqa: E402

PAIRS = 5
ROWS = ROOT / "benchmarks" / "results" / "speed.jsonl"


Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--published", action="store_true", help="AWA2's full widths too (4096 and 2048)")
    parser.add_argument("--only", choices=tuple(MEASURED), help="measure this alone")
    arguments = parser.parse_args()
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    for name, rows in MEASURED.items():
        if arguments.only in (None, name):
            for label, row in rows(arguments.published):
                tell(label, row)


def of_tfvaegan(published: bool) -> Iterator[tuple[str, Row]]:
    for hidden in (512, 1024, *((4096,) if published else ())):
        for loop in (0, 1):
            yield f"TF-VAEGAN, width {hidden}, loop {loop}", measure(hidden, loop)


def of_gsmflow(published: bool) -> Iterator[tuple[str, Row]]:
    for hidden in (512, *((2048,) if published else ())):
        for part in ("step", "relation", "mining"):
            yield f"GSMFlow, width {hidden}, {part}", measure_gsmflow(hidden, part)
        for rows, drawn in ((200, 0), (500, 20)):
            yield f"GSMFlow, width {hidden}, {rows} rows a class, drawn={drawn}", measure_synthesis(hidden, rows, drawn)


def of_dfca(published: bool) -> Iterator[tuple[str, Row]]:
    for hidden in (512, *((2048,) if published else ())):
        yield f"DFCA, width {hidden}, step", measure_dfca(hidden)


def of_bsegn(published: bool) -> Iterator[tuple[str, Row]]:
    for hidden in (1024, *((4096,) if published else ())):
        for part in BSEGN_PARTS:
            yield f"BSeGN, width {hidden}, {part}", measure_bsegn(hidden, part)
    yield "BSeGN, final softmax on 16000 rows of Ψ", measure_memory(1024)


def of_sddn(published: bool) -> Iterator[tuple[str, Row]]:
    for hidden in (512, *((2048,) if published else ())):
        for part in ("step", "relation", "synthesis"):
            yield f"SDDN, width {hidden}, {part}", measure_sddn(hidden, part)


def of_features(published: bool) -> Iterator[tuple[str, Row]]:
    yield "unseen features, JPEG 640 x 480", measure_features(400)


def of_classes(published: bool) -> Iterator[tuple[str, Row]]:
    for classifier, synthetic, times in (("softmax", 50, 1), ("gaussian", 500, 3)):
        yield f"10 classes added to 200, {classifier}", measure_classes(classifier, synthetic, times)


def of_answers(published: bool) -> Iterator[tuple[str, Row]]:
    for method in ("tfvaegan", "class-gaussian"):
        yield f"predictions, {method}", measure_answers(method)


MEASURED: dict[str, Callable[[bool], Iterator[tuple[str, Row]]]] = {
    "tfvaegan": of_tfvaegan,
    "gsmflow": of_gsmflow,
    "dfca": of_dfca,
    "bsegn": of_bsegn,
    "sddn": of_sddn,
    "features": of_features,
    "classes": of_classes,
    "answers": of_answers,
}
"""What is measured → its rows, with what is printed of each; the argument says whether at the published widths too."""


def tell(label: str, row: Row) -> None:
    """Print a row and keep it."""
    if "pictures_per_second" in row:
        told = f"{row['pictures_per_second']:.1f} pictures a second with {row['threads']} threads on {row['cores']} cores"
    elif "seconds_to_add" in row:
        told = f"{row['seconds_to_add']:.1f} s with {row['threads']} threads on {row['cores']} cores"
    elif "predictions_per_second" in row:
        told = f"{row['predictions_per_second']:.0f} a second, {row['ratio']:.2f} times as long as the products in numpy"
    elif "peak_bytes" in row:
        told = ", ".join(f"{held} held {peak / 2**20:.0f} MiB" for held, peak in row["peak_bytes"].items())
    else:
        told = (
            f"plain {row['plain_seconds']:.3f} s, ours {row['our_seconds']:.3f} s, "
            f"{row['ratio']:.1f} times as fast (from {row['ratio_min']:.1f} to {row['ratio_max']:.1f})"
        )
    print(f"{label}: {told}", flush=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def measure(hidden: int, loop: int) -> Row:
    """Paired times of one iteration at AWA2's shape: d 2048, a 85, batch 64."""
    view, generator = awa2(640)
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
    return {"what": "TF-VAEGAN iteration, d 2048, a 85, batch 64", "hidden": hidden, "loop": loop, **compared(pairs)}


def measure_gsmflow(hidden: int, part: str) -> Row:
    """Paired times at AWA2's shape, batch 256: of one step, of one step of relation training, of mining a batch twice."""
    view, generator = awa2(1280)
    settings = replace(gsmflow.PRESETS["awa2"][0], hidden=hidden, relation_hidden=hidden, mining_steps=2, anchor_classes="seen")
    method = gsmflow.GSMFlow(view, settings, seed=0)
    streams = method.streams = test_gsmflow.RecordedStreams(seed=0)
    plain = test_gsmflow.PlainTrainer(test_gsmflow.weights(method), settings, view)
    pairs = []
    for _ in range(PAIRS + 1):  # the first pair warms up
        rows = torch.randperm(1280, generator=generator)[:256]
        batch = view.features[rows], view.labels[rows]
        if part == "step":
            ours = timed(lambda batch=batch: method.step(lambda: batch, Clock(0, 5)))
            theirs = timed(lambda batch=batch: plain.step(*batch, streams.drawn, settings.lr))
        elif part == "relation":
            ours = timed(lambda batch=batch: method.prepare(lambda: batch, Clock(0, 5)))
            theirs = timed(lambda batch=batch: plain.train_relation(*batch))
        else:
            method.mined_rows[:256] = rows
            ours = timed(lambda batch=batch: method.prepare(lambda: batch, Clock(method.relation_steps, 5)))
            theirs = timed(lambda batch=batch: plain.mine(*batch, settings.mining_rate))
        pairs.append((theirs, ours))
    what = {"step": "step", "relation": "step of relation training", "mining": "mining of a batch in two steps"}[part]
    return {"what": f"GSMFlow {what}, d 2048, a 85, batch 256", "hidden": hidden, **compared(pairs)}


def measure_synthesis(hidden: int, rows: int, drawn: int) -> Row:
    """Paired times of making the final classifier's rows of ten unseen classes; with `drawn`, of so many that count for all."""
    view, generator = awa2(40)
    settings = replace(gsmflow.PRESETS["awa2-mm21"][0], hidden=hidden)
    method = gsmflow.GSMFlow(view, settings, seed=0)
    plain = test_gsmflow.PlainTrainer(test_gsmflow.weights(method), settings, view)

    @torch.no_grad()
    def class_by_class() -> None:
        made = []
        for k in view.unseen:
            z = torch.randn(rows, 2048, generator=generator)
            made.append(plain.flow.inverse(z, plain.condition(view.embeddings[k].expand(rows, -1))))
        torch.cat([view.features, *made])

    pairs = []
    for _ in range(PAIRS + 1):  # the first pair warms up
        ours = timed(lambda: classifier_rows(method, view, rows, seed=0, drawn=drawn))
        pairs.append((timed(class_by_class), ours))
    which = f"{rows} rows, {drawn} of them drawn" if drawn else f"{rows} rows"
    return {"what": f"GSMFlow synthesis, d 2048, a 85, 10 classes of {which}", "hidden": hidden, **compared(pairs)}


def measure_dfca(hidden: int) -> Row:
    """Paired times of one step at AWA2's shape, batch 256."""
    view, generator = awa2(1280)
    settings = replace(dfca.PRESETS["awa2"][0], hidden=hidden)
    method = dfca.DFCA(view, settings, seed=0)
    streams = method.streams = test_dfca.RecordedStreams(seed=0)
    plain = test_dfca.PlainTrainer(test_dfca.weights(method), settings, view)
    pairs = []
    for _ in range(PAIRS + 1):  # the first pair warms up
        rows = torch.randperm(1280, generator=generator)[:256]
        batch = view.features[rows], view.labels[rows]
        ours = timed(lambda batch=batch: method.step(lambda: batch, Clock(0, 5)))
        pairs.append((timed(lambda batch=batch: plain.step(*batch, streams.drawn, settings.lr)), ours))
    return {"what": "DFCA step, d 2048, a 85, batch 256", "hidden": hidden, **compared(pairs)}


BSEGN_PARTS = {
    "step": "iteration, batch 64",
    "contrast": "loss from semantics to features and its gradient, fifty times, 128 rows, 50 classes",
    "critic": "update of the critic, batch 64",
    "synthesis": "synthesis of 10 classes of 100 rows",
    "adam": "step of Adam over all networks",
}
"""What is measured → in words."""


def measure_bsegn(hidden: int, part: str) -> Row:
    """Paired times at AWA2's shape of one iteration after the warm-up, or of one of its parts."""
    view, generator = awa2(640)
    settings = replace(bsegn.PRESETS["awa2"][0], hidden=hidden, warm_up=0)
    method = bsegn.BSeGN(view, settings, seed=0)
    streams = method.streams = test_bsegn.RecordedStreams(seed=0)
    pairs = []

    def pair(ours: Callable[[], object], theirs: Callable[[], object]) -> None:
        first = timed(ours)  # draws what the plain form uses once more
        pairs.append((timed(theirs), first))

    if part == "step":
        plain, labels = test_bsegn.PlainInBatches(method, view), test_bsegn.Streams(0, view.device)
        for _ in range(PAIRS + 1):  # the first pair warms up
            draw = test_bsegn.Batches(view, 64)
            pair(
                lambda draw=draw: method.step(draw, Clock(0, 10)),
                lambda draw=draw: plain.iteration(True, draw.drawn, streams.drawn, labels),
            )
            streams.drawn.clear()
    elif part == "contrast":
        for _ in range(PAIRS + 1):
            logits = torch.randn(128, 50, generator=generator).requires_grad_()
            y = torch.cat([torch.randint(40, (64,), generator=generator), torch.randint(40, 50, (64,), generator=generator)])
            pair(*(repeated(form, logits, y) for form in (bsegn.semantic_to_feature, test_bsegn.class_by_class)))
    elif part == "critic":
        critic, other = (Critic(2048, 85, hidden) for _ in range(2))
        optimisers = adam(critic, 1e-5), unfused(other, 1e-5)
        for _ in range(PAIRS + 1):
            x, fake = (torch.rand(64, 2048, generator=generator) for _ in range(2))
            c, t = view.embeddings[torch.arange(64) % 40], torch.rand(64, 1, generator=generator)

            def theirs(x: torch.Tensor = x, fake: torch.Tensor = fake, c: torch.Tensor = c, t: torch.Tensor = t) -> None:
                loss = other(fake, c).mean() - other(x, c).mean() + 10 * plain_penalty(other, x, fake, c, t)
                optimisers[1].zero_grad()
                (10 * loss).backward()
                optimisers[1].step()

            pair(lambda batch=(x, fake, c, t): update_critic(critic, optimisers[0], *batch, 10.0, 10.0), theirs)
    elif part == "synthesis":
        for _ in range(PAIRS + 1):
            ids, noise = view.unseen.repeat_interleave(100), ClassStreams(0, view.names, view.device)
            pair(
                lambda ids=ids, noise=noise: method.sample(ids, noise),
                lambda ids=ids, noise=noise: torch.cat([method.sample(own, noise) for own in ids.split(100)]),
            )
    else:
        optimisers = adam(method, 1e-5), unfused(method, 1e-5)
        for parameter in method.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for _ in range(PAIRS + 1):
            pair(*(optimiser.step for optimiser in optimisers))
    return {"what": f"BSeGN {BSEGN_PARTS[part]}, d 2048, a 85", "hidden": hidden, **compared(pairs)}


def repeated(loss: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], object]:
    """Fifty times: once is too short to be timed."""
    return lambda: [loss(*inputs).backward() for _ in range(50)]


def unfused(module: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr, (0.5, 0.999), foreach=False)


def measure_memory(hidden: int) -> Row:
    """By how much the peak memory of a process grows that fits the softmax on Ψ of 16000 rows."""
    numbers = 16_000 * (2048 + hidden + hidden // 2 + 85)
    found = {}
    for held, bound in (("all", 2**50), ("a quarter", numbers)):  # of four bytes each
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:  # else the peak would be the parent's
            found[held] = fresh.submit(fit_classifier, hidden, bound).result()
    scores = [scores for _, _, scores in found.values()]
    return {
        "what": "BSeGN final softmax on 16000 rows of Ψ, d 2048, a 85",
        "hidden": hidden,
        "represented_bytes": 4 * numbers,
        "peak_bytes": {held: peak for held, (peak, _, _) in found.items()},
        "seconds": {held: seconds for held, (_, seconds, _) in found.items()},
        "largest_difference_of_scores": float((scores[0] - scores[1]).abs().max() / scores[0].abs().max()),
        "threads": torch.get_num_threads(),
        "clock": "process_time",
        "command": "make bench",
        "versions": versions(),
    }


def fit_classifier(hidden: int, bound: int) -> tuple[int, float, torch.Tensor]:
    """Bytes by which this process's peak grows, its seconds, and scores of some rows."""
    view, _ = awa2(8000)
    method = bsegn.BSeGN(view, replace(bsegn.PRESETS["awa2"][0], hidden=hidden), seed=0)
    represented.HELD_BYTES = bound
    before, begun = peak_bytes(), time.process_time()
    rows = classifier_rows(method, view, 800, seed=0)
    fitted = fit_final_classifier(rows, torch.arange(50), Recipe(classifier_epochs=3), 0)
    scores = fitted(method.represent(view.features[:200]))
    return peak_bytes() - before, time.process_time() - begun, scores


def measure_features(pictures: int) -> Row:
    """Pictures a second of the packaged network, from files on disk to the finished folder, starting the program left out."""
    from PIL import Image

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(pictures):
            path = folder / "pictures" / f"class {number % 4}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            blocks = rng.integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(blocks).save(path, quality=85)
        threads = min(2, os.cpu_count() or 1)
        EncoderChoice().build()  # the first one on a machine converts the network
        begun = time.perf_counter()
        extracted = extract(folder / "pictures", folder / "features", EncoderChoice(), threads=threads)
        seconds = time.perf_counter() - begun
    assert extracted.rows == pictures
    return {
        "what": "unseen features, efficientnet-lite0, JPEG 640 x 480",
        "pictures": pictures,
        "pictures_per_second": pictures / seconds,
        "threads": threads,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "clock": "perf_counter",
        "command": "python benchmarks/speed.py --only features",
        "versions": versions(),
    }


def measure_classes(classifier: str, synthetic: int, times: int) -> Row:
    """Seconds in which a TF-VAEGAN of the default width learns 10 classes beside 200, of which 50 have no row.

    Args:
        synthetic: rows of each class without rows: 500 by default, ten times as many as the others have, and 50 as published.
        times: how often the same classes are added to the same classifier, of which the median counts.
    """
    rng = np.random.default_rng(0)
    names = [f"class {k:03d}" for k in range(210)]
    embeddings = dict(zip(names, rng.normal(size=(210, 312)), strict=True))
    y = np.repeat(names[:150], 50)
    X = rng.random((len(y), 2048), np.float32)
    threads = min(2, os.cpu_count() or 1)
    settings = {"steps": 5, "synthetic": synthetic, "classifier": classifier}  # how well it is trained takes no time here
    fitted = ZeroShotClassifier(settings=settings, device="cpu", threads=threads)
    fitted.fit(X, y, classes={name: embeddings[name] for name in names[:200]})
    seconds = []
    for _ in range(times):
        changing = copy.copy(fitted)
        begun = time.perf_counter()
        changing.add_classes({name: embeddings[name] for name in names[200:]})
        seconds.append(time.perf_counter() - begun)
        assert len(changing.classes_) == 210
    return {
        "what": "add_classes: 10 to 200, TF-VAEGAN, d 2048, a 312, 7500 rows of 150 classes",
        "hidden": fitted._state.learned.hyperparameters.hidden,
        "classifier": classifier,
        "synthetic": synthetic,
        "times": times,
        "seconds_to_add": statistics.median(seconds),
        "threads": threads,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "clock": "perf_counter",
        "command": "python benchmarks/speed.py --only classes",
        "versions": versions(),
    }


def measure_answers(method: str) -> Row:
    """Predictions a second of `predict` for features, d 2048, 200 classes, beside the products of the same matrices."""
    rng = np.random.default_rng(0)
    names = [f"class {k:03d}" for k in range(200)]
    embeddings = dict(zip(names, rng.normal(size=(200, 312)), strict=True))
    y = np.repeat(names[:150], 10)
    settings: dict[str, Any] = {"scaling": "minmax"}
    if method == "tfvaegan":
        settings |= {"steps": 2, "synthetic": 10, "classifier": "gaussian"}
    fitted = ZeroShotClassifier(method, protocol="fixed", settings=settings, device="cpu", threads=1)
    fitted.fit(rng.random((len(y), 2048), np.float32), y, classes=embeddings)
    scored = fitted.fitted_
    assert isinstance(scored.scores, LinearScores)
    weight = scored.scores.weight.numpy()
    networks: tuple[torch.nn.Linear, ...] = ()
    if isinstance(scored.method, TFVAEGAN) and scored.method.decoder is not None:
        networks = scored.method.decoder.first, scored.method.decoder.second
    layers = [layer.weight.detach().numpy() for layer in networks]

    def products(X: np.ndarray) -> None:
        parts = [X]
        for layer in layers:
            parts.append(parts[-1] @ layer.T)
        start = 0
        for part in (parts[0], *parts[:0:-1]):  # [x, ĉ, r]
            part @ weight[:, start : start + part.shape[1]].T
            start += part.shape[1]

    X = rng.random((8192, 2048), np.float32)
    torch.set_num_threads(1)
    pairs = []
    for _ in range(2 * PAIRS + 1):  # the first pair warms up
        clocks = [time.perf_counter()]
        for start in range(0, len(X), 4096):
            products(X[start : start + 4096])
        clocks.append(time.perf_counter())
        fitted.predict(X)
        clocks.append(time.perf_counter())
        pairs.append((clocks[1] - clocks[0], clocks[2] - clocks[1]))
    ratios = [ours / plain for plain, ours in pairs[1:]]
    return {
        "what": f"predict, {method}, d 2048, 200 classes",
        "hidden": layers[0].shape[0] if layers else None,
        "predictions_per_second": len(X) / statistics.median(ours for _, ours in pairs[1:]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "pairs": 2 * PAIRS,
        "threads": 1,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "clock": "perf_counter",
        "command": "python benchmarks/speed.py --only answers",
        "versions": versions(),
    }


def peak_bytes() -> int:
    """Of this process, on Linux; `ru_maxrss` would count what its parent had in memory when it began."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def measure_sddn(hidden: int, part: str) -> Row:
    """Paired times at AWA2's shape, batch 64: of one step past the warm-up, of the relation term of its 128 rows with its
    gradients, of 200 synthetic rows of each unseen class."""
    view, generator = awa2(640)
    settings = replace(sddn.PRESETS["awa2"][0], hidden=hidden, refiner=hidden, half=hidden)
    method = sddn.SDDN(view, settings, seed=1)
    streams = method.streams = test_sddn.RecordedStreams(seed=1)
    plain = test_sddn.PlainTrainer(method, view, settings)
    step = 2 * settings.warm_up * test_sddn.EPOCH + 1  # not the judges' turn
    ids = view.unseen.repeat_interleave(200)
    pairs = []
    for _ in range(PAIRS + 1):  # the first pair warms up
        rows = torch.randperm(640, generator=generator)[:64]
        batch = view.features[rows], view.labels[rows]
        h_s, g_s = torch.randn(128, hidden, generator=generator), torch.randn(50, hidden, generator=generator)[batch[1]]
        if part == "step":
            ours = timed(lambda batch=batch: method.step(lambda: batch, Clock(step, test_sddn.EPOCH)))
            theirs = timed(lambda batch=batch: plain.iteration(*batch, step, streams.drawn))
        elif part == "relation":
            y = batch[1]
            ours = timed(lambda h=h_s, g=g_s, y=y: sddn.relation_loss(method.relation(h, g), y).backward())
            theirs = timed(lambda h=h_s, g=g_s, y=y: plain.relation(h, g, y).backward())
        else:
            made = [ClassStreams(0, view.names, view.device) for _ in range(2)]
            ours = timed(lambda made=made: method.sample(ids, made[0]))
            theirs = timed(lambda made=made: [method.sample(ids[ids == k], made[1]) for k in view.unseen])
        pairs.append((theirs, ours))
    what = {"step": "step", "relation": "relation term and its gradients", "synthesis": "synthesis of 10 classes"}[part]
    return {"what": f"SDDN {what}, d 2048, a 85, batch 64", "hidden": hidden, **compared(pairs)}


def awa2(rows: int) -> tuple[ScaledView, torch.Generator]:
    """Random rows of AWA2's shape: d 2048, a 85, 40 seen and 10 unseen classes."""
    generator = torch.Generator().manual_seed(0)
    view = ScaledView(
        features=torch.rand(rows, 2048, generator=generator),
        labels=torch.arange(rows) % 40,
        embeddings=torch.nn.functional.normalize(torch.randn(50, 85, generator=generator), dim=1),
        names=tuple(f"class {k}" for k in range(50)),
        seen=torch.arange(40),
        unseen=torch.arange(40, 50),
        unit_interval=True,
    )
    return view, generator


def compared(pairs: list[tuple[float, float]]) -> Row:
    """Medians of seconds (plain, ours) and of their ratios, without the first pair; and where they were measured."""
    ratios = [theirs / ours for theirs, ours in pairs[1:]]
    return {
        "pairs": PAIRS,
        "plain_seconds": statistics.median(theirs for theirs, _ in pairs[1:]),
        "our_seconds": statistics.median(ours for _, ours in pairs[1:]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "threads": torch.get_num_threads(),
        "clock": "process_time",
        "command": "make bench",
        "versions": versions(),
    }


def timed(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
