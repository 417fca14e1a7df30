"""What `unseen predict` costs: `python benchmarks/predict.py` → benchmarks/results/speed.jsonl.

Peak memory and seconds for 100,000 and for a million rows of 128 features (of CSV, for the former alone), as a process of its
own that answers by an exported graph; and pictures a second from a folder of JPEG files to answers, by a classifier's folder,
starting the program left out. By the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]

import numpy as np  # noqa: E402

from unseen import ZeroShotClassifier  # noqa: E402
from unseen.answering import answered, open_model  # noqa: E402
from unseen.cli.answers import as_json_lines, one_by_one  # noqa: E402
from unseen.encoders import ImageEncoder  # noqa: E402
from unseen.evaluation.protocol import versions  # noqa: E402
from unseen.export import export_onnx  # noqa: E402
from unseen.extraction import cores  # noqa: E402

ROWS = ROOT / "benchmarks" / "results" / "speed.jsonl"
WIDTH, CLASSES = 128, 50
COUNTS = (100_000, 1_000_000)
BLOCK = 50_000
PICTURES = 200

MEASURE = """
import sys
from pathlib import Path
from unseen.cli import main
main()
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
"""`ru_maxrss` would count what the parent had in memory when it began."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=("npy", "csv", "parquet", "pictures"), help="measure this alone")
    only = parser.parse_args().only
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for suffix in ("npy", "parquet"):
            if only in (None, suffix):
                tell(measure_rows(folder, suffix, COUNTS))
        if only in (None, "csv"):
            tell(measure_rows(folder, "csv", COUNTS[:1]))
        if only in (None, "pictures"):
            tell(measure_pictures(folder))


def tell(row: dict[str, object]) -> None:
    """Print a row and keep it."""
    about = {
        "clock": "perf_counter",
        "command": "python benchmarks/predict.py",
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    print(json.dumps(row), flush=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row | about | {"load_average": os.getloadavg()[0]}, sort_keys=True) + "\n")


def measure_rows(folder: Path, suffix: str, counts: tuple[int, ...]) -> dict[str, object]:
    """Peak memory and seconds of the whole command, for each number of rows."""
    graph = folder / "model.onnx"
    if not graph.exists():
        rng = np.random.default_rng(0)
        y = rng.permutation(np.arange(4000) % CLASSES)
        X = rng.normal(size=(len(y), WIDTH)) + rng.normal(size=(CLASSES, WIDTH))[y]
        export_onnx(ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1}).fit(X, y).fitted_, graph)
    peaks, seconds = {}, {}
    for count in counts:
        path = folder / f"rows.{suffix}"
        WRITE[suffix](path, count)
        words = ["predict", graph, path, "--top", 1, "--out", folder / "answers.jsonl"]
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, words)], capture_output=True, text=True, check=True)
        seconds[str(count)] = time.perf_counter() - begun
        peaks[str(count)] = 1024 * int(done.stdout.split()[-1])
        path.unlink()
        (folder / "answers.jsonl").unlink()
    return {
        "what": f"unseen predict, exported graph, rows of {WIDTH} float32 from .{suffix}, {CLASSES} classes, JSON lines",
        "peak_bytes": peaks,
        "seconds": seconds,
        "threads": cores(),
    }


def blocks(count: int) -> Iterator[np.ndarray]:
    """So many rows, some at a time."""
    rng = np.random.default_rng(1)
    for start in range(0, count, BLOCK):
        yield rng.normal(size=(min(BLOCK, count - start), WIDTH)).astype(np.float32)


def write_npy(path: Path, count: int) -> None:
    whole = np.lib.format.open_memmap(path, "w+", np.float32, (count, WIDTH))
    for k, block in enumerate(blocks(count)):
        whole[k * BLOCK : k * BLOCK + len(block)] = block


def write_csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        for block in blocks(count):
            np.savetxt(file, block, "%.6g", ",")


def write_parquet(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("features", pa.list_(pa.float32(), WIDTH))])
    with pq.ParquetWriter(path, schema) as file:
        for block in blocks(count):
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), WIDTH)
            file.write_table(pa.Table.from_arrays([values], schema=schema))


WRITE: dict[str, Callable[[Path, int], None]] = {"npy": write_npy, "csv": write_csv, "parquet": write_parquet}


def measure_pictures(folder: Path) -> dict[str, object]:
    """Pictures a second of a classifier on features of the packaged network."""
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number in range(PICTURES):
        shown = rng.integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(shown).save(folder / "pictures" / f"{number}.jpg", quality=85)
    y = np.arange(400) % 20
    X = rng.random((len(y), ImageEncoder.dimension), np.float32)
    known = ZeroShotClassifier("class-gaussian", settings={"gamma": 0.1}, image_encoder=ImageEncoder.name, threads=1)
    known.fit(X, y).save(folder / "model")
    model = open_model(folder / "model")
    model.seeing()  # the first time on a machine the network is converted
    begun = time.perf_counter()
    parts = answered(model, str(folder / "pictures"), print)
    lines = sum(1 for _ in as_json_lines(one_by_one(parts, model.names, 3), 3))
    seconds = time.perf_counter() - begun
    assert lines == PICTURES
    return {
        "what": "unseen predict, folder of a classifier, efficientnet-lite0, JPEG 640 x 480",
        "pictures": PICTURES,
        "pictures_per_second": PICTURES / seconds,
        "threads": cores(),
    }


if __name__ == "__main__":
    main()
