"""Files that survive: failing disks, lying headers, foreign content."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from unseen import storage
from unseen.errors import DataError, RunError
from unseen.storage import (
    FORMULA,
    csv_text,
    fingerprint,
    hash_of,
    read_arrays,
    read_json,
    replace_folder,
    write_arrays,
    write_atomically,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- writing


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "note.txt", "Ænima")
    assert (tmp_path / "new" / "note.txt").read_bytes() == "Ænima".encode()
    assert names(tmp_path / "new") == ["note.txt"]
    assert (tmp_path / "new" / "note.txt").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "note.txt", "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        no_space()

    with pytest.raises(RunError, match=r"note\.txt: No space left on device; nothing was changed"):
        write_atomically(tmp_path / "note.txt", half)
    assert (tmp_path / "note.txt").read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_last_step_leaves_the_old_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "note.txt", "old")
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), no_space)
    with pytest.raises(RunError):
        write_text(tmp_path / "note.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "note.txt").read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_arrays_that_do_not_fit_on_the_disk_are_a_sentence(tmp_path: Path) -> None:
    """safetensors reports a failed write as an error of its own, not as OSError. A size limit plays the full disk."""
    write_arrays(tmp_path / "a.safetensors", {"x": np.ones(3, np.float32)})
    program = (
        "import resource, signal, sys, pathlib, numpy as np\n"
        "from unseen.errors import RunError\n"
        "from unseen.storage import write_arrays\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_arrays(pathlib.Path(sys.argv[1]), {'x': np.zeros(1_000_000)})\n"
        "except RunError as error: print(error)\n"
    )
    path = tmp_path / "a.safetensors"
    out = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert out.stdout.startswith(f"cannot write {path}: ")
    assert read_arrays(path)[0]["x"].tolist() == [1, 1, 1]
    assert names(tmp_path) == ["a.safetensors"]


def test_a_folder_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "note.txt").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*note\.txt"):
        write_text(tmp_path / "note.txt", "x")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file"):
        write_text(tmp_path / "file" / "note.txt", "x")


def test_json_refuses_what_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"H": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None], "b": "ä"}


# --- folders


def fill(content: str) -> Any:
    return lambda folder: (folder / "f").write_text(content) and None


def test_a_folder_is_replaced_whole_and_nothing_stays_behind(tmp_path: Path) -> None:
    replace_folder(tmp_path / "d", fill("one"))
    (tmp_path / "d" / "extra").touch()
    replace_folder(tmp_path / "d", fill("two"))
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["f"]
    assert (tmp_path / "d" / "f").read_text() == "two"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_whose_replacement_fails_at_either_rename_is_as_it_was(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder(tmp_path / "d", fill("one"))
    renames = 0
    honest = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        return no_space() if renames == failing else honest(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(RunError, match=r"nothing was changed"):
        replace_folder(tmp_path / "d", fill("two"))
    monkeypatch.undo()
    assert (tmp_path / "d" / "f").read_text() == "one"
    assert names(tmp_path) == ["d"]


@pytest.mark.parametrize(
    ("at", "path"),
    [(".", "d/../d"), (".", "d/deep/../../d"), ("d", "."), ("d", "../d"), ("d/deep", ".."), ("d/deep", "../../d")],
)
def test_a_folder_may_be_named_by_a_way_through_itself(
    at: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a way ends where the old folder is put aside."""
    (tmp_path / "d" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / at)
    replace_folder(Path(path), fill("two"))
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["f"]


def test_a_link_to_a_folder_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    replace_folder(tmp_path / "elsewhere" / "d", fill("one"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "d")
    replace_folder(tmp_path / "link", fill("two"))
    replace_folder(tmp_path / "elsewhere" / "d" / ".." / "d", fill("three"))
    (tmp_path / "link" / "on").symlink_to(tmp_path / "elsewhere" / "d")
    replace_folder(tmp_path / "link" / "on" / ".." / "e", fill("four"))  # beside d, where the link leads
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link" / "f").read_text() == "two"
    assert (tmp_path / "elsewhere" / "d" / "f").read_text() == "three"
    assert names(tmp_path / "elsewhere") == ["d", "e"]


# --- reading


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "damaged or is not JSON"),
        (b"[1]", "holds a list where an object is expected"),
        (b"\xff\xfe", "damaged or is not JSON"),
        (b"[" * 200_000, "damaged or is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "damaged or is not JSON"),
        (b'{"a": NaN}', "damaged or is not JSON"),
        (b'{"a": -Infinity}', "damaged or is not JSON"),
    ],
)
def test_json_that_is_none_is_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_json(tmp_path / "a.json")


def test_json_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(DataError, match=r"a\.json is larger than 64 MB"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    for read in (read_json, read_arrays):
        with pytest.raises(DataError, match="does not exist"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match="is damaged"):
            read(tmp_path)


DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_bit_for_bit_and_mapped(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    arrays = {"a": array, "odd": np.array([7], np.uint8), "b": array.T, "none": array[:0], "zero": array[0, 0].reshape(())}
    write_arrays(tmp_path / "a.safetensors", arrays, {"note": "ä"})
    found, metadata = read_arrays(tmp_path / "a.safetensors")
    assert metadata == {"note": "ä"}
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()
        assert not found[name].flags.writeable
        assert isinstance(found[name], np.memmap) or not value.size


def test_big_endian_arrays_are_stored_by_value(tmp_path: Path) -> None:
    array = np.array([[1.5, -2.0]], ">f4")
    write_arrays(tmp_path / "a.safetensors", {"x": array})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.safetensors")[0]["x"], array)


def test_a_sealed_file_tells_of_every_changed_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"x": np.arange(6, dtype=np.float32), "k": np.arange(3)}, {"step": "7"}, sealed=True)
    arrays, metadata = read_arrays(path)
    assert metadata == {"step": "7"}
    assert arrays["x"].tolist() == [0, 1, 2, 3, 4, 5]
    original = path.read_bytes()
    start = 8 + int.from_bytes(original[:8], "little")
    assert len(original) - start == 48
    for position in (*range(start, len(original)), original.index(b'"7"') + 1):
        data = bytearray(original)
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.safetensors is damaged .*its checksum differs"):
            read_arrays(path)


def header(tensors: object, body: bytes = bytes(16)) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + body


GOOD = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        struct.pack("<Q", 2**62) + b"{}",
        header({"x": GOOD})[:-1],
        header({"x": GOOD | {"data_offsets": [0, 2**40]}}),
        header({"x": GOOD | {"data_offsets": [-16, 0]}}),
        header({"x": GOOD | {"shape": [5]}}),
        header({"x": GOOD | {"shape": [2**62, 4]}}),
        header({"x": GOOD, "y": GOOD}),
        header({"x": {"dtype": "F4", "shape": [4], "data_offsets": [0, 16]}}),
        header({"x": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}}),
        header({"x": GOOD}) + b"tail",
        header([1, 2]),
        b"\x80\x04\x95" + b"pickle" * 9,
    ],
)
def test_files_that_lie_about_their_content_are_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors is damaged or is not safetensors"):
        read_arrays(tmp_path / "a.safetensors")


def test_a_thousand_mutants_give_arrays_or_our_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "a.safetensors"
    save_file({"features": rng.random((3, 4), np.float32), "labels": np.arange(3)}, path)
    original = path.read_bytes()
    refused = 0
    for _ in range(1000):
        data = bytearray(original)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data) - 60)] = rng.integers(256)
        path.write_bytes(data if rng.random() < 0.8 else data[: rng.integers(len(data))])
        try:
            read_arrays(path)
        except DataError:
            refused += 1
    assert refused > 500


# --- fingerprints


def test_a_fingerprint_depends_on_values_shape_and_dtype_alone() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = fingerprint(array)
    assert fingerprint(np.asfortranarray(array)) == same
    assert fingerprint(array.astype(">f4")) == same
    assert fingerprint(np.repeat(array, 2, axis=1)[:, ::2]) == same
    assert same == "87858b08ea9f54284675f63b398303306d3e83aac89b1f918e5c15714a18c3e1"
    others = [array.astype(np.float64), array.reshape(4, 3), array + 1, array[:2], array[::-1]]
    assert len({same, *(fingerprint(other) for other in others)}) == 6
    assert fingerprint(array, array) != fingerprint(np.concatenate([array, array]))
    assert fingerprint(array[0], array[1]) != fingerprint(array[1], array[0])


def test_a_fingerprint_in_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    array = np.random.default_rng(0).random((40_000, 120))  # 38 MB, three pieces
    whole = hashlib.sha256(f"<f8{array.shape}".encode() + array.tobytes()).hexdigest()
    assert fingerprint(array) == whole


def test_fingerprints_of_empty_and_single_arrays() -> None:
    values = {fingerprint(np.zeros(shape)) for shape in ((), (0,), (0, 3), (3, 0), (1,))}
    assert len(values) == 5


def test_the_hash_of_a_json_value_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1})
    assert hash_of({"b": [2, 1]}) != hash_of({"b": [1, 2]})


def test_no_pickle_and_no_evaluation_in_the_source() -> None:
    """Files are data. Nothing of ours, and no way that we open, runs what a file says."""
    source = Path(storage.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        for forbidden in ("import pickle", "pickle.load", "joblib.load", "yaml.load(", " eval(", " exec(", "allow_pickle=True"):
            assert forbidden not in text, f"{forbidden} in {path}"


# --- tables


def unquoted(cell: str) -> str:
    """The text that was written as this cell."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def test_csv_comes_back_and_no_cell_is_a_formula() -> None:
    run = ["=1+1", "+1", "-1", "@x", "\tx", "\r=1", "\n=1"]
    cells = [*run, "'=1", "''-x", "'s-Gravenhage", "plain", "a,b", 'say "x"', "a\rb\nc"]
    lines = list(csv.reader(io.StringIO(csv_text(["name", "value"], [[cell, -1.5] for cell in cells]), newline="")))
    assert lines[0] == ["name", "value"]
    assert [unquoted(name) for name, _ in lines[1:]] == cells
    assert all(not name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for name, _ in lines)
    assert {value for _, value in lines[1:]} == {"-1.5"}  # a number is no formula
    assert lines[cells.index("'s-Gravenhage") + 1][0] == "'s-Gravenhage"


def test_csv_leaves_a_missing_value_empty() -> None:
    assert csv_text(["a", "b", "c"], [[None, 0, ""]]) == "a,b,c\n,0,\n"
