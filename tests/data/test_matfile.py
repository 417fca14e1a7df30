"""Reading .mat files: what comes back, what is refused, and that nothing a file does reaches this process."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from unseen.data import Dataset, matfile
from unseen.data.matfile import Limits, read_mat
from unseen.data.xlsa17 import _assemble, read_xlsa17
from unseen.data.xlsa17_writer import write_xlsa17
from unseen.errors import DataError, MissingDependency, RunError, UnseenError


def cells(*names: str) -> np.ndarray[Any, Any]:
    """A column cell array of strings, as MATLAB writes it."""
    return np.array(names, dtype=object)[:, None]


# --- what comes back


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8", ">f8", ">u2"])
def test_numbers_come_back_as_stored(tmp_path: Path, quick_reader: None, dtype: str, compressed: bool) -> None:
    stored = np.arange(1, 13).reshape(3, 4).astype(dtype)
    savemat(tmp_path / "m.mat", {"x": stored, "unasked": np.ones(3)}, do_compression=compressed)
    found = read_mat(tmp_path / "m.mat", ["x"], ["not there"])
    assert list(found) == ["x"]
    assert found["x"].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found["x"], stored)
    assert found["x"].flags.writeable


def test_a_column_of_texts_and_a_character_table_come_back_as_strings(tmp_path: Path, quick_reader: None) -> None:
    savemat(tmp_path / "m.mat", {"cell": cells("a b", "", "Æ ö", " 鳥 "), "table": np.array(["ab", "c"])})
    found = read_mat(tmp_path / "m.mat", ["cell", "table"])
    assert found["cell"].tolist() == ["a b", "", "Æ ö", "鳥"]
    assert found["table"].tolist() == ["ab", "c"]


def test_the_real_process_is_started_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matfile.tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    savemat(tmp_path / "m.mat", {"x": np.eye(3), "names": cells("a", "b")})
    found = read_mat(tmp_path / "m.mat", ["x", "names"])
    np.testing.assert_array_equal(found["x"], np.eye(3))
    assert found["names"].tolist() == ["a", "b"]
    assert list((tmp_path / "private").iterdir()) == []


def test_modules_lying_about_are_not_imported_by_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scipy.py").write_text("raise SystemExit(3)")
    savemat(tmp_path / "m.mat", {"x": np.eye(3)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.testing.assert_array_equal(read_mat(Path("m.mat"), ["x"])["x"], np.eye(3))


# --- what is refused


def sentence(path: Path, *required: str, limits: Limits | None = None, kind: type[UnseenError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        read_mat(path, required or ("x",), limits=limits)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "does not exist" in sentence(tmp_path / "none.mat")
    assert "is a folder" in sentence(tmp_path)
    (tmp_path / "empty.mat").touch()
    assert "is empty" in sentence(tmp_path / "empty.mat")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>404</html>" * 9, bytes(4096), b"version https://git-lfs", b"PK\3\4" * 90]
)
def test_other_files_under_the_name_are_damaged_ones(tmp_path: Path, quick_reader: None, content: bytes) -> None:
    (tmp_path / "page.mat").write_bytes(content)
    assert "damaged or is not a MATLAB file" in sentence(tmp_path / "page.mat")


def test_missing_variables_are_listed_beside_those_found(tmp_path: Path, quick_reader: None) -> None:
    savemat(tmp_path / "m.mat", {"features": np.eye(2), "label": np.ones(2)})
    said = sentence(tmp_path / "m.mat", "features", "labels")
    assert "lacks 'labels'" in said
    assert "expected features, labels, found features, label;" in said


def test_kinds_that_are_no_table_are_named(tmp_path: Path, quick_reader: None) -> None:
    from scipy.sparse import eye_array

    for value, name in (
        (np.eye(2) * 1j, "complex"),
        (eye_array(3).tocsc(), "sparse"),
        ({"a": 1}, "struct"),
        (np.array([[np.eye(2)], [np.eye(3)]], dtype=object), "cell array of something else"),
    ):
        savemat(tmp_path / "m.mat", {"x": value})
        said = sentence(tmp_path / "m.mat")
        assert "'x' in" in said
        assert name in said


# --- version 7.3, which is HDF5


def write_73(path: Path, **content: Any) -> Path:
    """As MATLAB writes it: 512 bytes of its own, arrays transposed, strings as UTF-16 behind references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in content.items():
            if isinstance(value, list):
                references = []
                for k, text in enumerate(value):
                    codes = np.frombuffer(text.encode("utf-16-le"), "<u2")
                    cell = file.create_dataset(f"#refs#/{name}{k}", data=codes[:, None] if text else np.zeros(2, np.uint64))
                    cell.attrs["MATLAB_class"] = np.bytes_("char")
                    if not text:
                        cell.attrs["MATLAB_empty"] = np.uint8(1)
                    references.append(cell.ref)
                entry = file.create_dataset(name, data=np.array([references], h5py.ref_dtype), dtype=h5py.ref_dtype)
                entry.attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                entry = file.create_dataset(name, data=value.T)
                entry.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8", ">f8"])
def test_version_73_comes_back_as_stored(tmp_path: Path, quick_reader: None, dtype: str) -> None:
    stored = np.arange(1, 13).reshape(3, 4).astype(dtype)
    path = write_73(tmp_path / "m.mat", x=stored, names=["a b", "", "Æ ö", " 鳥🐕 "], row=np.arange(3.0)[:, None])
    found = read_mat(path, ["x", "names", "row"], ["not there"])
    np.testing.assert_array_equal(found["x"], stored)
    assert found["x"].dtype == np.dtype(dtype).newbyteorder("=")
    assert found["names"].tolist() == ["a b", "", "Æ ö", "鳥🐕"]
    assert found["row"].shape == (3, 1)


def test_a_benchmark_in_version_73_is_the_same_data_set(tmp_path: Path, quick_reader: None, tiny: Dataset) -> None:
    """The two files written in version 5 and stored again in version 7.3."""
    from scipy.io import loadmat

    write_xlsa17(tiny, tmp_path / "old")
    (tmp_path / "new").mkdir()
    for name in ("res101.mat", "att_splits.mat"):
        content = {key: value for key, value in loadmat(tmp_path / "old" / name).items() if key[0] != "_"}
        texts = {k: [str(cell[0][0]) for cell in v] for k, v in content.items() if v.dtype == object}
        write_73(tmp_path / "new" / name, **{**content, **texts})
    old, new = read_xlsa17(tmp_path / "old"), read_xlsa17(tmp_path / "new")
    assert new.features_fingerprint == old.features_fingerprint
    assert new.classes.names == old.classes.names
    assert new.split().fingerprint == old.split().fingerprint
    np.testing.assert_array_equal(new.classes.embeddings, old.classes.embeddings)


def _no_variable(path: Path) -> None:
    write_73(path, y=np.eye(2))


def _struct(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("x")


def _sparse(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("x").attrs["MATLAB_sparse"] = 3


def _complex(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = np.eye(2) * 1j


def _cells_of_numbers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["#refs#/a"] = np.eye(2)
        file.create_dataset("x", data=np.array([[file["#refs#/a"].ref]], h5py.ref_dtype), dtype=h5py.ref_dtype)


def _external_bytes(path: Path) -> None:
    """A file whose features are the bytes of another file on this machine."""
    (path.parent / "secret").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (8, 1), "f8", external=[(str(path.parent / "secret"), 0, 64)])


def _external_link(path: Path) -> None:
    write_73(path.parent / "other.mat", x=np.eye(2))
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(str(path.parent / "other.mat"), "/x")


def _virtual(path: Path) -> None:
    write_73(path.parent / "other.mat", x=np.eye(2))
    layout = h5py.VirtualLayout((2, 2), "f8")
    layout[:] = h5py.VirtualSource(str(path.parent / "other.mat"), "x", (2, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)


def _declared(path: Path) -> None:
    """Four terabytes of zeros that no byte is stored of."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**20, 2**19), "f8", chunks=(1024, 1024))


def _only_the_name(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600))


def _truncated(path: Path) -> None:
    write_73(path, x=np.random.default_rng(0).random((99, 99)))
    path.write_bytes(path.read_bytes()[:3000])


DAMAGED_73: dict[str, tuple[Callable[[Path], None], str]] = {
    "no such variable": (_no_variable, "lacks 'x': expected x, found y"),
    "struct": (_struct, "'x' in .* is a struct"),
    "sparse": (_sparse, "'x' in .* is a sparse matrix"),
    "complex": (_complex, "'x' in .* is complex"),
    "cells of numbers": (_cells_of_numbers, "cell array of something else than text"),
    "bytes of another file": (_external_bytes, "a reference to another file"),
    "link to another file": (_external_link, "a link to somewhere else"),
    "virtual": (_virtual, "a reference to another file"),
    "declared shape": (_declared, "is damaged"),
    "only the name": (_only_the_name, "is damaged or is not a MATLAB file"),
    "truncated": (_truncated, "is damaged or is not a MATLAB file"),
}


@pytest.mark.parametrize("how", DAMAGED_73)
def test_version_73_that_is_wrong_is_one_sentence(how: str, tmp_path: Path, quick_reader: None) -> None:
    write, expected = DAMAGED_73[how]
    write(tmp_path / "m.mat")
    assert re.search(expected, sentence(tmp_path / "m.mat"))


def test_version_73_without_h5py_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_73(tmp_path / "m.mat", x=np.eye(2))
    done = subprocess.CompletedProcess([], 0, b'{"problem": "h5py"}')
    monkeypatch.setattr(matfile, "_run_child", lambda job, seconds: done)
    assert "pip install 'unseen[mat73]'" in sentence(tmp_path / "m.mat", kind=MissingDependency)


@pytest.mark.parametrize("seed", range(40))
def test_mutants_of_version_73_give_numbers_or_our_error(seed: int, tmp_path: Path, quick_reader: None) -> None:
    path = write_73(tmp_path / "m.mat", x=np.arange(12.0).reshape(3, 4), names=["ant", "bee"])
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 9)):
        data[int(rng.integers(512, len(data)))] = rng.integers(256)
    path.write_bytes(data)
    try:
        found = read_mat(path, ["x", "names"], limits=Limits(seconds=5))
    except DataError:
        return
    assert set(found) == {"x", "names"}


# --- limits, and the child's death


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Path:
    """A file to read, and a child that does not read it."""
    monkeypatch.setattr(matfile, "CHILD", tmp_path / "child.py")
    (tmp_path / "child.py").write_text(program)
    (tmp_path / "m.mat").write_bytes(b"x")
    return tmp_path / "m.mat"


def test_a_crash_of_the_child_is_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stand_in(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    said = sentence(path)
    assert "is damaged" in said
    assert "SIGSEGV" in said


@pytest.mark.parametrize("program", ["print('{')", "print(7)", "raise SystemExit(4)"])
def test_an_answer_that_is_none_is_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    assert "is damaged" in sentence(stand_in(tmp_path, monkeypatch, program))


def test_a_child_that_hangs_is_ended_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stand_in(tmp_path, monkeypatch, "import time; time.sleep(300)")
    assert "more than 1 seconds" in sentence(path, limits=Limits(seconds=1.0))


def test_no_second_python_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stand_in(tmp_path, monkeypatch, "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "cannot start a second Python" in sentence(path, kind=RunError)


def test_a_full_temporary_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "m.mat", {"x": np.eye(2)})

    def failing(job: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], 0, b'{"problem": "write", "detail": "No space left on device"}')

    monkeypatch.setattr(matfile, "_run_child", failing)
    said = sentence(tmp_path / "m.mat", kind=RunError)
    assert "No space left on device" in said
    assert "TMPDIR" in said


@pytest.mark.skipif(importlib.util.find_spec("resource") is None or sys.platform == "darwin", reason="no memory limits here")
def test_a_small_file_that_unpacks_to_much_meets_the_memory_limit(tmp_path: Path) -> None:
    savemat(tmp_path / "bomb.mat", {"x": np.zeros((1000, 160_000), np.uint8)}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < 200_000
    said = sentence(tmp_path / "bomb.mat", limits=Limits(memory_bytes=350_000_000, memory_per_byte=0))
    assert "more than 0.3 GB of memory" in said


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="no limits on this platform")
def test_the_child_limits_its_memory_and_its_time_and_leaves_no_core_file() -> None:
    program = (
        "import importlib.util, resource as r, sys; s = importlib.util.spec_from_file_location('c', sys.argv[1]);"
        "c = importlib.util.module_from_spec(s); s.loader.exec_module(c); c._limit(3 * 2**30, 7);"
        "print(r.getrlimit(r.RLIMIT_AS), r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_CORE))"
    )
    out = subprocess.run([sys.executable, "-I", "-c", program, str(matfile.CHILD)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"({3 * 2**30}, {3 * 2**30}) (7, 7) (0, 0)"


@pytest.mark.parametrize(
    "answer", [{"problem": "missing", "found": ["\x1b[2J\n"]}, {"problem": "damaged", "detail": "\x1b[2J\n"}]
)
def test_what_a_file_says_cannot_command_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    (tmp_path / "m.mat").write_bytes(b"x")
    done = subprocess.CompletedProcess([], 0, json.dumps(answer).encode())
    monkeypatch.setattr(matfile, "_run_child", lambda job, seconds: done)
    assert "�[2J�" in sentence(tmp_path / "m.mat")


def test_the_limits_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of a large set come in files of gigabytes, which take their time and several times their size in memory."""
    asked: dict[str, Any] = {}

    def record(job: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
        asked.update(json.loads(job), seconds=seconds)
        return subprocess.CompletedProcess([], -9, b"")

    monkeypatch.setattr(matfile, "_run_child", record)
    with (tmp_path / "large.mat").open("wb") as file:
        file.write(b"MATLAB 5.0 MAT-file")
        file.truncate(3 * 10**9)
    assert "SIGKILL" in sentence(tmp_path / "large.mat")
    assert asked["seconds"] == asked["cpu_seconds"] == pytest.approx(609)
    assert asked["memory_bytes"] == 2 * 2**30 + 72 * 10**9
    with (tmp_path / "large.mat").open("r+b") as file:
        file.truncate(135_000)
    sentence(tmp_path / "large.mat")
    assert asked["seconds"] < 10


# --- two hundred damaged files

SPLIT_KEYS = ("att", "trainval_loc", "test_seen_loc", "test_unseen_loc")


@pytest.fixture(scope="module")
def real_split_files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, bytes]:
    """AWA1's split file as distributed (compressed) and the same content uncompressed."""
    from scipy.io import loadmat

    path = shared_data / "xlsa17-splits" / "AWA1" / "att_splits.mat"
    plain = tmp_path_factory.mktemp("plain") / "att_splits.mat"
    savemat(plain, {k: v for k, v in loadmat(path).items() if not k.startswith("__")}, do_compression=False)
    return {True: path.read_bytes(), False: plain.read_bytes()}


def length_fields(data: bytes | bytearray, start: int, end: int) -> Iterator[int]:
    """Where a v5 file, or a matrix in it, states how many bytes come next."""
    while start + 8 <= end:
        kind, length = struct.unpack_from("<II", data, start)
        if kind >> 16:  # a small element: four bytes of data beside its tag
            yield start + 2
            start += 8
            continue
        yield start + 4
        if kind == 14:  # a matrix: elements inside
            yield from length_fields(data, start + 8, start + 8 + length)
        start += 8 + (length if kind == 15 else -(-length // 8) * 8)


def mutant(original: bytes, how: str, seed: int) -> bytes:
    rng = np.random.default_rng([seed, *how.encode()])
    data = bytearray(original)
    if how == "truncation":
        return bytes(data[: rng.integers(1, len(data))])
    if how == "bytes":
        # Half of the edits fall where the structure is: the first two hundred bytes of a variable.
        tags = [field - 4 for field in length_fields(data, 128, len(data))]
        for _ in range(rng.integers(1, 9)):
            near = int(rng.choice(tags)) + int(rng.integers(0, 200))
            data[min(near, len(data) - 1) if rng.random() < 0.5 else int(rng.integers(len(data)))] = rng.integers(256)
        return bytes(data)
    start = 128
    elements = []  # (offset, length) of the file's outermost elements
    while start + 8 <= len(data):
        length = struct.unpack_from("<I", data, start + 4)[0]
        elements.append((start, length))
        start += 8 + length
    start, length = elements[rng.integers(len(elements))]
    packed = struct.unpack_from("<I", data, start)[0] == 15
    inner = bytearray(zlib.decompress(data[start + 8 : start + 8 + length]) if packed else data[start : start + 8 + length])
    fields = list(length_fields(inner, 0, len(inner)))
    field = fields[rng.integers(min(len(fields), 12))]
    old = struct.unpack_from("<I", inner, field)[0]
    new = rng.choice([0, 1, 7, old + 1, max(old - 1, 0), old * 2, 2**31 - 1, 2**31, 2**32 - 1, int(rng.integers(2**32))])
    struct.pack_into("<I", inner, field, int(new) % 2**32)
    if packed:
        again = zlib.compress(bytes(inner))
        return bytes(data[:start]) + struct.pack("<II", 15, len(again)) + again + bytes(data[start + 8 + length :])
    return bytes(data[:start]) + bytes(inner) + bytes(data[start + 8 + length :])


@pytest.mark.parametrize("compressed", [True, False])
def test_a_hundred_mutants_give_a_data_set_or_our_error(
    compressed: bool, tmp_path: Path, shared_data: Path, real_split_files: dict[bool, bytes], quick_reader: None
) -> None:
    """Each within the reader's own limit of about ten seconds, in a child that may die; this process goes on."""
    labels = np.load(shared_data / "awa1-bow" / "labels.npy")[:, None]
    features = np.random.default_rng(0).random((2, len(labels)), np.float32)
    path = tmp_path / "att_splits.mat"
    outcomes: Counter[tuple[str, str]] = Counter()
    for seed in range(100):
        how = ("bytes", "length", "truncation")[seed % 3]
        path.write_bytes(mutant(real_split_files[compressed], how, seed))
        try:
            table = read_mat(path, SPLIT_KEYS, ["allclasses_names"])
            found = _assemble(tmp_path / "res101.mat", {"features": features, "labels": labels}, path, table, {})
        except DataError:
            outcomes[how, "refused"] += 1
        else:
            assert len(found.labels) == len(labels)
            outcomes[how, "read"] += 1
    for how in ("bytes", "length", "truncation"):
        assert outcomes[how, "refused"] >= 5, outcomes
    assert sum(outcomes[how, "read"] for how in ("bytes", "length")) >= 1, outcomes


@pytest.mark.parametrize("how", ["bytes", "length", "truncation"])
def test_mutants_through_the_real_process(
    how: str, tmp_path: Path, shared_data: Path, real_split_files: dict[bool, bytes]
) -> None:
    labels = np.load(shared_data / "awa1-bow" / "labels.npy")[:, None]
    savemat(tmp_path / "res101.mat", {"features": np.random.default_rng(0).random((2, len(labels))), "labels": labels})
    for compressed in (False, True):
        refused = 0
        for seed in range(3):
            (tmp_path / "att_splits.mat").write_bytes(mutant(real_split_files[compressed], how, 1000 + seed))
            try:
                read_xlsa17(tmp_path)
            except DataError:
                refused += 1
        assert refused >= 1
