"""Pictures → features, part by part: what is done survives a kill, and shards of a collection can be done anywhere.

    OUT.unfinished/   job.json and part-….safetensors, until everything is done; each part knows size and time of its pictures,
                      and is made anew where one of them is another by then
    OUT/              a collection (see `unseen.data.collection`) and skipped.csv, what was left out and why

Rows go through the network in batches whose borders are rows of the whole table, whoever encodes them, and each batch runs on
one thread. So the same pictures give the same bits, resumed or not, in shards or not, with any number of threads.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unseen.data.collection import Collection, load_collection, save_collection
from unseen.data.pictures import PictureTable, Problem, list_pictures
from unseen.encoders.backbones import EncoderChoice, PictureEncoder
from unseen.encoders.images import shown
from unseen.encoders.text import one_thread
from unseen.errors import DataError, RunError, SettingsError
from unseen.storage import (
    csv_text,
    hash_of,
    read_arrays,
    read_json,
    read_metadata,
    text_of_cell,
    write_arrays,
    write_bytes,
    write_json,
)

Batch = TypeVar("Batch")
Done = TypeVar("Done")

FORMAT = "unseen-extraction"
VERSION = 1
PART_BATCHES = 8
"""Batches that are kept together: what a kill costs, at most, for each that is under way."""
STAMPS = "stamps"
"""Metadata key of a part: the hash of sizes and times of its pictures, taken before they were read."""
JOB_PARTS = 16
"""Parts that a worker of a cluster does before it ends: loading a network takes a while."""


@dataclass(frozen=True)
class Shard:
    """One of several equal pieces of a table, counted from 0."""

    index: int = 0
    of: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """`0/4` … `3/4`; SettingsError for anything else."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
            some = of.isdecimal() and int(of) > 0
            how = f"the last one of {of} is {int(of) - 1}/{of}" if some else "as 0/4, 1/4, 2/4 and 3/4 are of four"
            raise SettingsError(f"--shard {text} is no shard; they are counted from 0, {how}")
        return Shard(int(index), int(of))

    def rows(self, count: int, batch_size: int) -> range:
        """Its rows of a table of so many; whole batches."""
        batches = -(-count // batch_size)
        begin, end = (batches * place // self.of * batch_size for place in (self.index, self.index + 1))
        return range(begin, min(end, count))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


@dataclass(frozen=True)
class Part:
    """Rows that are encoded and kept together.

    Args:
        first: the first row, which begins a batch.
        places: of the rows' pictures.
    """

    first: int
    places: tuple[str, ...]

    def file(self, folder: Path) -> Path:
        """Where its features are kept."""
        return folder / f"part-{self.first:012d}.safetensors"

    def is_done(self, folder: Path) -> bool:
        """Whether its features are kept, and are those of the pictures that are there now."""
        file = self.file(folder)
        return file.exists() and read_metadata(file).get(STAMPS) == _in_one(map(_stamp, self.places))


@dataclass(frozen=True)
class PartsJob:
    """Parts for a worker of a cluster."""

    choice: EncoderChoice
    fingerprint: str
    parts: tuple[Part, ...]
    threads: int

    @property
    def description(self) -> dict[str, Any]:
        """What an engine wants to know."""
        return {"device": self.choice.device}


@dataclass(frozen=True)
class Extracted:
    """What came out.

    Args:
        rows: pictures that have features.
        problems: all that was left out.
        before: whether it was there already.
    """

    rows: int
    problems: tuple[Problem, ...]
    before: bool = False


@dataclass
class Speed:
    """How far it is, told after each batch; pictures done by an earlier command count as done, but not for the speed."""

    pictures: int
    done: int = 0
    here: int = 0
    begun: float = field(default_factory=time.monotonic)

    def add(self, pictures: int) -> Speed:
        """So many more."""
        self.done += pictures
        self.here += pictures
        return self

    @property
    def per_second(self) -> float:
        """Pictures a second, of this command."""
        return self.here / max(time.monotonic() - self.begun, 1e-9)

    @property
    def seconds_left(self) -> float:
        """At this speed."""
        return (self.pictures - self.done) / max(self.per_second, 1e-9)


@dataclass(frozen=True)
class ClusterChoice:
    """A Ray cluster to do the work on; see `unseen.experiments.engines`."""

    address: str | None = None
    workers: int | None = None


def extract(
    source: Path,
    out: Path,
    choice: EncoderChoice,
    *,
    shard: Shard = Shard(),
    threads: int | None = None,
    cluster: ClusterChoice | None = None,
    on_progress: Callable[[Speed], None] = lambda speed: None,
) -> Extracted:
    """Encode the pictures of a folder or table, or go on where an earlier call stopped.

    Args:
        source: see `list_pictures`.
        out: the collection's folder.
        threads: batches at a time, on a CPU; pictures that are decoded at a time, beside a GPU. The number of cores if None.
        cluster: done there instead of here.
        on_progress: told after each batch; after each job of a cluster.

    Raises:
        DataError: there is no picture, or none that can be used.
        RunError: `out` holds something else, or the disk refuses.
        SettingsError, MissingDependency: see `EncoderChoice.build`.
    """
    from unseen.runs import locked

    if threads is not None and threads < 1:
        raise SettingsError("--threads must be 1 or more")
    threads = threads or (cores() if cluster is None else 1)
    _check_named(out)
    _check_apart(source, out)
    table, encoder = list_pictures(source), choice.build()
    if not (rows := shard.rows(len(table), encoder.batch_size)):
        raise SettingsError(
            f"shard {shard} of {len(table)} pictures is empty, as they are {-(-len(table) // encoder.batch_size)} batches of "
            f"{encoder.batch_size}; use fewer shards"
        )
    place = Path(os.path.abspath(out))  # a name also for 'x/..'
    work = place.parent / f"{place.name}.unfinished"
    job = _job(table, encoder, shard)
    if (before := _finished(out, work, job)) is not None:
        return before
    with _folder(work):
        work.mkdir(parents=True, exist_ok=True)
    with locked(work):
        _begin(work, job, out)
        parts = [
            Part(part[0], tuple(table.place(row) for row in part)) for part in _cut(rows, PART_BATCHES * encoder.batch_size)
        ]
        to_do = [part for part in parts if not part.is_done(work)]
        speed = Speed(len(rows), len(rows) - sum(len(part.places) for part in to_do))
        if cluster is not None:
            _encode_on_cluster(to_do, choice, encoder.fingerprint, work, threads, cluster, on_progress, speed)
        else:
            encode_parts(to_do, encoder, work, threads, lambda pictures: on_progress(speed.add(pictures)))
        return _assemble(parts, table, encoder, job, work, out)


def merge(folders: Sequence[Path], out: Path) -> Extracted:
    """Put the shards of one collection together; the result is that of the whole, bit for bit.

    Raises:
        DataError: a folder is no shard, they are of different collections or encoders, or one is missing or given twice.
        RunError: `out` holds something else, or the disk refuses.
    """
    _check_named(out)
    found: dict[int, tuple[Path, Collection]] = {}
    for folder in folders:
        collection = load_collection(folder, shards=True)
        about = collection.encoder
        if not {"table", "shard", "fingerprint"} <= about.keys():
            raise DataError(f"{folder} was not written by `unseen features`, so it is no shard; leave it out")
        shard = Shard.parse(about["shard"])
        if shard.index in found:
            raise DataError(f"{found[shard.index][0]} and {folder} are both shard {shard}; give each shard once")
        found[shard.index] = folder, collection
    if not found:
        raise DataError("there is nothing to merge; give the folders of all shards")
    shards = [found[index] for index in sorted(found)]
    first_folder, first = shards[0]
    of = Shard.parse(first.encoder["shard"]).of
    for folder, collection in shards:
        for key, what in (("table", "other pictures"), ("fingerprint", "another encoder"), ("pictures", "other pictures")):
            if collection.encoder.get(key) != first.encoder.get(key):
                raise DataError(f"{folder} is of {what} than {first_folder}; merge shards of one collection")
        if Shard.parse(collection.encoder["shard"]).of != of:
            raise DataError(f"{folder} is one of other shards than {first_folder} ({of}); merge shards of one division")
    if missing := [f"{index}/{of}" for index in range(of) if index not in found]:
        raise DataError(f"shard {', '.join(missing[:5])} is missing; give the folders of all {of}")
    about = {**first.encoder, "shard": str(Shard())}
    _check_free(out, about)
    problems = tuple(chain.from_iterable(_read_problems(folder) for folder, _ in shards))
    with _together(out, [collection.features for _, collection in shards]) as features:
        whole = Collection(
            features,
            tuple(chain.from_iterable(collection.labels for _, collection in shards)),
            tuple(chain.from_iterable(collection.paths for _, collection in shards)),
            first.provenance,
            about,
        )
        save_collection(whole, out)
    _write_problems(out, problems)
    return Extracted(len(whole.labels), problems)


def encode_parts(
    parts: Sequence[Part], encoder: PictureEncoder, work: Path, threads: int, on_batch: Callable[[int], None]
) -> None:
    """Encode parts and keep each as soon as it is whole; several batches at a time.

    Args:
        on_batch: told how many pictures a batch had, in order.
    """
    size = encoder.batch_size
    batches = [part.places[start : start + size] for part in parts for start in range(0, len(part.places), size)]
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")  # Pillow's, of every somewhat odd picture
        done = in_order(partial(_encode, encoder), batches, threads)
        for part in parts:
            features: list[NDArray[np.float32]] = []
            rows: list[int] = []
            problems: dict[str, str] = {}
            stamps: list[str] = []
            for start in range(0, len(part.places), size):
                encoded, whys, stamped = next(done)
                features.append(encoded)
                stamps += stamped
                rows += [start + position for position, why in enumerate(whys) if why is None]
                problems |= {str(part.first + start + position): why for position, why in enumerate(whys) if why is not None}
                on_batch(len(whys))
            arrays: dict[str, NDArray[Any]] = {
                "features": np.concatenate(features),
                "rows": part.first + np.array(rows, np.int64),
            }
            write_arrays(part.file(work), arrays, {**problems, STAMPS: _in_one(stamps)}, sealed=True)


def carry_out_parts(job: PartsJob, work: Path) -> bool:
    """What a worker of a cluster does with a job.

    Raises RunError where this machine cannot do it as the one that planned it would.
    """
    if not (work / "job.json").exists():
        raise RunError(f"{work} cannot be seen from the machine that does the work; choose a folder that all machines share")
    encoder = job.choice.build()
    if encoder.fingerprint != job.fingerprint:
        raise RunError(f"{job.choice.name} is another one here; install the same versions and weights on all machines")
    encode_parts([part for part in job.parts if not part.is_done(work)], encoder, work, job.threads, lambda pictures: None)
    return True


def _check_named(out: Path) -> None:
    """The result takes the place of an empty folder, which the one somebody is in cannot give up."""
    here = Path.cwd()
    if Path(os.path.realpath(out)) in (here, *here.parents):
        raise RunError("--out is the folder that you are in, or one above it; give the features a name of their own")


def _check_apart(source: Path, out: Path) -> None:
    """What is written would be taken for a class the next time, and every list of the pictures would be another one."""
    inside, within = os.path.realpath(out), os.path.realpath(source)
    if os.path.isdir(within) and inside != within and inside.startswith(os.path.join(within, "")):
        raise RunError(f"{out} lies among the pictures of {source}, where it would be taken for a class; choose another --out")


def _stamp(place: str) -> str:
    """What changes when another picture takes this one's name."""
    try:
        about = os.stat(place)
    except (OSError, ValueError):
        return ""
    return f"{about.st_size} {about.st_mtime_ns}"


def _in_one(stamps: Iterable[str]) -> str:
    return hash_of(list(stamps))


_Encoded = tuple[NDArray[np.float32], list[str | None], list[str]]


def _encode(encoder: PictureEncoder, places: Sequence[str]) -> _Encoded:
    """Features of the pictures that can be used; why the others cannot, and all their stamps, by position."""
    stamps = [_stamp(place) for place in places]
    prepared: list[NDArray[np.float32]] = []
    whys: list[str | None] = []
    for place in places:
        try:
            prepared.append(encoder.prepared(place))
            whys.append(None)
        except DataError as error:
            whys.append(str(error).removeprefix(f"picture {shown(place)} "))
    if not prepared:
        return np.empty((0, encoder.dimension), np.float32), whys, stamps
    features = encoder.pooled(np.stack(prepared))
    finite = np.isfinite(features).all(axis=1)
    used = [position for position, why in enumerate(whys) if why is None]
    for position in (used[k] for k in np.flatnonzero(~finite)):
        whys[position] = "gives features that are not finite; look at the picture and at the weights"
    return features[finite], whys, stamps


def in_order(work: Callable[[Batch], Done], batches: Iterable[Batch], threads: int) -> Iterator[Done]:
    """As `map`, a few at a time: while one batch is in the network, others are decoded."""
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(threads, "pictures") as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _encode_on_cluster(
    parts: Sequence[Part],
    choice: EncoderChoice,
    fingerprint: str,
    work: Path,
    threads: int,
    cluster: ClusterChoice,
    on_progress: Callable[[Speed], None],
    speed: Speed,
) -> None:
    from unseen.experiments.engines import engine_named, wait_to_see

    jobs = [
        PartsJob(choice, fingerprint, tuple(parts[start : start + JOB_PARTS]), threads)
        for start in range(0, len(parts), JOB_PARTS)
    ]
    engine = engine_named("ray", carry_out_parts, work.absolute(), cluster.workers, threads, cluster.address)
    waiting, at_work = deque(jobs), 0
    try:
        while waiting or at_work:
            while waiting and at_work < engine.slots:
                engine.submit(waiting.popleft())
                at_work += 1
            if (done := engine.next_done()) is None:
                continue
            at_work -= 1
            if done.lost:
                raise RunError(f"{done.lost}; what is done is kept, and the same command goes on")
            on_progress(speed.add(sum(len(part.places) for part in done.job.parts)))
    finally:
        engine.close()
    wait_to_see(lambda: all(part.file(work).exists() for part in parts))


def _job(table: PictureTable, encoder: PictureEncoder, shard: Shard) -> dict[str, str]:
    """What determines the result, as the collection tells it, too."""
    return {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "table": table.fingerprint,
        "pictures": str(len(table)),
        "shard": str(shard),
    }


def _check_free(out: Path, job: Mapping[str, str]) -> bool:
    """Whether nothing is in `out`; RunError if it is anything else than this very result."""
    with _folder(out):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return True
        if not (out / "features.json").exists():
            raise RunError(f"{out} already exists and holds no features of ours; choose another --out")
    if read_json(out / "features.json").get("encoder") != job:
        raise RunError(
            f"{out} already holds features of other pictures, of another shard or by another encoder; choose another --out"
        )
    return False


def _finished(out: Path, work: Path, job: dict[str, str]) -> Extracted | None:
    """What is in `out`, if it is this very result; RunError if it is anything else."""
    if _check_free(out, job) or not (out / "skipped.csv").exists():
        return None  # in the second case it was killed just before its end
    shutil.rmtree(work, ignore_errors=True)
    return Extracted(len(load_collection(out, shards=True).labels), _read_problems(out), before=True)


def _begin(work: Path, job: dict[str, str], out: Path) -> None:
    """Make `work` this job's folder, or go on in it; RunError if it is another's."""
    path = work / "job.json"
    if path.exists():
        before = read_json(path)
        if before != {"format": FORMAT, "version": VERSION, "job": job}:
            raise RunError(
                f"{work} holds unfinished work on other pictures, by another encoder or of another version; finish that by its "
                "own command, remove the folder, or choose another --out"
            )
        return
    if any(entry.name != ".lock" and not entry.name.startswith(".job.json.") for entry in work.iterdir()):
        raise RunError(f"{work}, where unfinished work is kept, holds something else; choose another --out than {out}")
    write_json(path, {"format": FORMAT, "version": VERSION, "job": job})


def _assemble(
    parts: Sequence[Part], table: PictureTable, encoder: PictureEncoder, job: dict[str, str], work: Path, out: Path
) -> Extracted:
    """Put the parts together in `out`, and remove them."""
    rows: list[int] = []
    problems = list(table.problems) if Shard.parse(job["shard"]).index == 0 else []

    def stored() -> Iterator[NDArray[np.float32]]:
        for part in parts:
            try:
                arrays, whys = read_arrays(part.file(work))
            except DataError:
                part.file(work).unlink(missing_ok=True)
                raise
            whys.pop(STAMPS, None)
            rows.extend(arrays["rows"].tolist())
            problems.extend(Problem(table.paths[int(row)], whys[row]) for row in sorted(whys, key=int))
            yield arrays["features"]

    try:
        with _together(out, stored()) as features:
            labels = tuple(table.labels[row] for row in rows)
            paths = tuple(table.paths[row] for row in rows)
            save_collection(Collection(features, labels, paths, encoder.description, job), out)
    except _Nothing:
        first = problems[0]
        count = sum(len(part.places) for part in parts)
        raise DataError(f"none of {count} pictures can be used; the first: {shown(first.path)} {first.why}") from None
    _write_problems(out, problems)
    shutil.rmtree(work, ignore_errors=True)
    return Extracted(len(rows), tuple(problems))


class _Nothing(Exception):
    """There is no row."""


@contextmanager
def _together(out: Path, arrays: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.float32]]:
    """Arrays one below the other, as one that is mapped from a nameless file beside `out`: they may be larger than memory."""
    with _folder(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=out.parent)  # noqa: SIM115 -- closed below
    with file:
        rows, width = 0, 0
        for array in arrays:
            with _folder(out):
                file.write(np.ascontiguousarray(array, "<f4").data if len(array) else b"")
            rows, width = rows + len(array), array.shape[1]
        if not rows:
            raise _Nothing
        with _folder(out):
            file.flush()
        yield np.memmap(file, "<f4", "r", shape=(rows, width))


def _write_problems(out: Path, problems: Sequence[Problem]) -> None:
    """`skipped.csv`, for people; an empty table where nothing was left out. It comes last."""
    text = csv_text(("path", "problem"), ((problem.path, problem.why) for problem in problems))
    write_bytes(out / "skipped.csv", text.encode(errors="surrogateescape"))  # the bytes that the names have


def _read_problems(out: Path) -> tuple[Problem, ...]:
    try:
        text = (out / "skipped.csv").read_bytes().decode(errors="surrogateescape")
        lines = list(csv.reader(io.StringIO(text, newline="")))[1:]
        return tuple(Problem(*map(text_of_cell, line)) for line in lines)
    except (OSError, csv.Error, TypeError) as error:
        raise DataError(f"{out / 'skipped.csv'} is missing or damaged ({error}); encode the pictures again") from error


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A disk that refuses is a sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free some space or choose another folder") from error
