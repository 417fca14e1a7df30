"""Pictures → features: no row lost or doubled, and the same bits, whatever happens on the way."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unseen.data.collection import load_collection
from unseen.encoders.images import opened_rgb
from unseen.errors import DataError, RunError, SettingsError
from unseen.extraction import Extracted, Shard, extract, merge
from unseen.runs import locked

Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")

RESULT = ("features.json", "features.safetensors", "rows.csv", "skipped.csv")


class Gossip:
    """Features that tell of the whole batch, as those of a real network may, in the last bits: what must not change is which
    rows are in it. The first number is the picture's own."""

    name, dimension, description, batch_size = "gossip", 4, "gossip, 4-d", 3

    def __init__(self, slow: float = 0.0, word: str = "") -> None:
        self.slow = slow
        self.fingerprint = hashlib.sha256(word.encode()).hexdigest()

    def load(self) -> None:
        pass

    def prepared(self, picture: Any) -> NDArray[np.float32]:
        return np.asarray(opened_rgb(picture).resize((2, 2)), np.float32).transpose(2, 0, 1)

    def pooled(self, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.slow)
        own = stacked[:, 0, 0, 0] + 256 * stacked[:, 1, 0, 0]
        place = np.arange(len(own), dtype=np.float32)
        return np.stack([own, own.sum() + 0 * own, place, len(own) + 0 * own], axis=1)


@dataclass(frozen=True)
class Choice:
    """A choice of that encoder."""

    slow: float = 0.0
    word: str = ""
    name: str = "gossip"
    device: str = "cpu"

    def build(self) -> Gossip:
        return Gossip(self.slow, self.word)


def run(source: Path, out: Path, choice: Any = Choice(), **more: Any) -> Extracted:
    return extract(source, out, choice, **more)


def result(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULT}


def numbered(number: int) -> Any:
    return Image.new("RGB", (4, 4), (number % 256, number // 256, 0))


def skipped(out: Path) -> dict[str, str]:
    text = (out / "skipped.csv").read_bytes().decode(errors="surrogateescape")
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    assert header == ["path", "problem"]
    return dict(lines)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures of three classes, each of a colour of its own, and some that are broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(100):
        path = folder / f"class {number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        numbered(number).save(path)
        if number in (17, 18, 40, 77):
            path.write_bytes(path.read_bytes()[:40])
    return folder


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted call with one thread writes."""
    out = tmp_path_factory.mktemp("whole") / "features"
    run(pictures, out, threads=1)
    return out


def test_every_picture_has_its_row_in_order(pictures: Path, whole: Path) -> None:
    collection = load_collection(whole)
    expected = [
        (f"class {label}", number) for label in range(3) for number in range(label, 100, 3) if number not in (17, 18, 40, 77)
    ]
    assert [(label, int(path[-7:-4])) for label, path in zip(collection.labels, collection.paths, strict=True)] == expected
    np.testing.assert_array_equal(collection.features[:, 0], [number for _, number in expected])
    assert collection.provenance == "gossip, 4-d"
    assert collection.encoder["name"] == "gossip"
    assert sorted(skipped(whole)) == ["class 0/018.png", "class 1/040.png", "class 2/017.png", "class 2/077.png"]
    assert sorted(entry.name for entry in whole.parent.iterdir()) == ["features"]  # nothing is left beside it
    assert sorted(entry.name for entry in whole.iterdir()) == sorted(RESULT)


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_no_bit(threads: int, pictures: Path, whole: Path, tmp_path: Path) -> None:
    assert run(pictures, tmp_path / "out", threads=threads).rows == 96
    assert result(tmp_path / "out") == result(whole)


@pytest.mark.parametrize("of", [1, 2, 3, 12])
def test_shards_merge_to_the_same_bits(of: int, pictures: Path, whole: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"shard {index}" for index in range(of)]
    rows = [run(pictures, folder, shard=Shard(index, of)).rows for index, folder in enumerate(folders)]
    assert sum(rows) == 96
    assert merge(folders[::-1], tmp_path / "out").rows == 96
    assert result(tmp_path / "out") == result(whole)


def test_shards_are_equal_pieces_of_whole_batches() -> None:
    for count, size, of in ((100, 3, 7), (1, 32, 1), (64, 32, 2), (10_000, 32, 16)):
        pieces = [Shard(index, of).rows(count, size) for index in range(of)]
        assert [row for piece in pieces for row in piece] == list(range(count))
        assert all(piece.start % size == 0 for piece in pieces)
        lengths = [-(-len(piece) // size) for piece in pieces]
        assert max(lengths) - min(lengths) <= 1


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_extraction import Choice, run
run(Path({source!r}), Path({out!r}), Choice(slow=0.03), threads=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_killed_again_and_again_it_loses_and_doubles_nothing(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out.unfinished"
    code = CHILD.format(tests=str(Path(__file__).parent), source=str(pictures), out=str(out))
    for parts in (1, 3):
        child = subprocess.Popen([sys.executable, "-c", code])
        patience = time.monotonic() + 60
        while len(list(work.glob("part-*"))) < parts:
            assert child.poll() is None, "it ended before it was killed"
            assert time.monotonic() < patience
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not out.exists()
    kept = len(list(work.glob("part-*")))
    assert 3 <= kept < 5
    (work / ".part-000000000000.safetensors.abc").write_bytes(b"half")  # as of a write that was killed

    told: list[int] = []
    extracted = run(pictures, out, on_progress=lambda speed: told.append(speed.done))
    assert extracted == Extracted(96, extracted.problems, before=False)
    assert told == [min(24 * kept + 3 * batch, 100) for batch in range(1, len(told) + 1)]  # what was kept was not done again
    assert told[-1] == 100
    assert result(out) == result(whole)
    assert not work.exists()


@pytest.mark.parametrize("after", ["save_collection", "_write_problems"])
def test_killed_at_its_end_it_ends_the_next_time(
    after: str, pictures: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the collection and the list of problems, and between that and the removal of the parts."""
    from unseen import extraction

    def then_die(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    real = getattr(extraction, after)
    monkeypatch.setattr(extraction, after, then_die)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "out")
    monkeypatch.undo()
    assert (tmp_path / "out.unfinished").exists()
    assert run(pictures, tmp_path / "out").before == (after == "_write_problems")
    assert result(tmp_path / "out") == result(whole)
    assert not (tmp_path / "out.unfinished").exists()


def test_a_picture_replaced_between_kill_and_resumption_is_noticed(pictures: Path, whole: Path, tmp_path: Path) -> None:
    """And only its part is made anew. Nothing tells by the names, so the time of a file has to."""
    source = shutil.copytree(pictures, tmp_path / "pictures")

    def stop(speed: Any) -> None:
        if speed.done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", on_progress=stop)
    kept = len(list((tmp_path / "out.unfinished").glob("part-*")))
    assert kept == 2
    changed, gone, mended = (source / name for name in ("class 0/003.png", "class 0/006.png", "class 0/018.png"))
    numbered(777).save(changed)
    gone.unlink()  # its name stays in the table below
    numbered(18).save(mended)
    with pytest.raises(RunError, match="unfinished work on other pictures"):  # a folder shows what is gone
        run(source, tmp_path / "out")
    numbered(888).save(gone)
    told: list[int] = []
    run(source, tmp_path / "out", on_progress=lambda speed: told.append(speed.done))
    assert told[0] == 24 + 3  # the second part was kept
    collection = load_collection(tmp_path / "out")
    own = dict(zip(collection.paths, collection.features[:, 0], strict=True))
    assert own["class 0/003.png"] == 777
    assert own["class 0/006.png"] == 888
    assert own["class 0/018.png"] == 18
    assert len(own) == 97
    assert own["class 1/001.png"] == 1


def test_out_among_the_pictures_is_refused(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts would be a class of the next command, which then could not go on."""
    for out in (pictures / "features", pictures / "class 0" / "features"):
        with pytest.raises(RunError, match="lies among the pictures of"):
            run(pictures, out)
        assert not out.exists()
    (tmp_path / "link").symlink_to(pictures)
    with pytest.raises(RunError, match="lies among the pictures of"):
        run(pictures, tmp_path / "link" / "features")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="is the folder that you are in"):
        run(pictures, Path("."))


def test_done_is_done(pictures: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole, tmp_path / "out")
    monkeypatch.setattr(Gossip, "pooled", lambda *_: pytest.fail("it was encoded a second time"))
    again = run(pictures, tmp_path / "out")
    assert (again.rows, again.before, len(again.problems)) == (96, True, 4)


def test_other_work_in_the_same_folder_is_refused(pictures: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "done")
    with pytest.raises(RunError, match="features of other pictures, of another shard or by another encoder"):
        run(pictures, tmp_path / "done", Choice(word="other"))
    with pytest.raises(RunError, match="features of other pictures, of another shard or by another encoder"):
        run(pictures, tmp_path / "done", shard=Shard(0, 2))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds no features of ours"):
        run(pictures, tmp_path / "taken")
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds something else"):
        run(pictures, tmp_path / "new")


def test_unfinished_work_of_another_kind_is_refused(pictures: Path, tmp_path: Path) -> None:
    def stop(speed: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "out", on_progress=stop)
    with pytest.raises(RunError, match="holds unfinished work on other pictures, by another encoder"):
        run(pictures, tmp_path / "out", Choice(word="other"))
    with locked(tmp_path / "out.unfinished"), pytest.raises(RunError, match="another process is working"):
        run(pictures, tmp_path / "out")


def test_a_damaged_part_is_named_and_made_anew(pictures: Path, whole: Path, tmp_path: Path) -> None:
    def stop(speed: Any) -> None:
        if speed.done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "out", on_progress=stop)
    part = tmp_path / "out.unfinished" / "part-000000000024.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(DataError, match="part-000000000024"):
        run(pictures, tmp_path / "out")
    run(pictures, tmp_path / "out")
    assert result(tmp_path / "out") == result(whole)


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "0/0", "1/", "/2", "0/4/2", "１/x"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="counted from 0"):
        Shard.parse(text)


def test_more_shards_than_batches_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="34 batches of 3; use fewer shards"):
        run(pictures, tmp_path / "out", shard=Shard(0, 35))
    assert not list(tmp_path.iterdir())


def test_shards_that_do_not_belong_together_are_refused(pictures: Path, whole: Path, tmp_path: Path) -> None:
    a, b, other, third = (tmp_path / name for name in ("a", "b", "other", "third"))
    run(pictures, a, shard=Shard(0, 2))
    run(pictures, b, shard=Shard(1, 2))
    run(pictures, other, Choice(word="other"), shard=Shard(1, 2))
    run(pictures, third, shard=Shard(2, 3))
    np.savez(tmp_path / "foreign.npz", label=np.array(["x"]), features=np.ones((1, 2)))
    for folders, said in (
        ([a], "shard 1/2 is missing; give the folders of all 2"),
        ([a, b, a], "are both shard 0/2"),
        ([a, other], "is of another encoder"),
        ([a, third], "is one of other shards"),
        ([a, tmp_path / "foreign.npz"], "so it is no shard"),
        ([], "nothing to merge"),
    ):
        with pytest.raises(DataError, match=said):
            merge(folders, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_merging_replaces_nothing_else(pictures: Path, whole: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    run(pictures, a, shard=Shard(0, 2))
    run(pictures, b, shard=Shard(1, 2))
    before = result(a)
    with pytest.raises(RunError, match="a already holds features of other pictures, of another shard or by another encoder"):
        merge([a, b], a)
    assert result(a) == before
    for _ in range(2):  # the second time over the same result
        merge([a, b], tmp_path / "out")
        assert result(tmp_path / "out") == result(whole)


# ------------------------------------------------------------------------------------------------- whatever is in a folder


def save_png_16(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x1234, np.uint16)).save(path)


def bomb(path: Path) -> None:
    """A small file that says it has 900 million pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 90_001 * 10, 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_whatever_is_in_a_folder_is_encoded_or_listed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    red.save(folder / "plain.png")
    red.convert("CMYK").save(folder / "cmyk.jpg")
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.gif")
    save_png_16(folder / "sixteen.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    halves = Image.new("RGB", (16, 8), (200, 0, 0))
    halves.paste((0, 0, 200), (8, 0, 16, 8))
    halves.save(folder / "turned.jpg", exif=turned, quality=100)
    red.save(folder / "-rf.png")
    red.save(folder / "new\nline.png")
    red.save(os.fsencode(folder) + b"/\xff\xfe.png")  # type: ignore[arg-type]
    red.save(folder / "broken-exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    Image.new("F", (8, 8)).save(folder / "float.tif")
    Image.new("I", (8, 8)).save(folder / "long.tif")  # zeros, which would fit into 16 bits
    (folder / "sixteen.pgm").write_bytes(b"P5 8 8 65535 " + b"\x12\x34" * 64)
    Image.new("RGB", (1, 5000)).save(folder / "line.png")
    red.save(folder / "program.eps")
    bomb(folder / "bomb.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "plain.png").read_bytes()[:50])
    (folder / "loop").symlink_to(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extracted = run(tmp_path / "pictures", tmp_path / "out", threads=2)

    collection = load_collection(tmp_path / "out")
    own = {os.fsencode(path)[2:]: value for path, value in zip(collection.paths, collection.features[:, 0], strict=True)}
    assert set(own) == {
        b"plain.png", b"cmyk.jpg", b"palette.gif", b"sixteen.png", b"turned.jpg", b"-rf.png", b"new\nline.png", b"\xff\xfe.png",
        b"broken-exif.jpg", b"sixteen.pgm",
    }  # fmt: skip
    assert own[b"plain.png"] == own[b"-rf.png"] == own[b"new\nline.png"] == own[b"\xff\xfe.png"] == own[b"palette.gif"] == 200
    assert own[b"sixteen.png"] == own[b"sixteen.pgm"] == 0x12 + 256 * 0x12
    for name in (b"cmyk.jpg", b"broken-exif.jpg"):
        assert abs(own[name] % 256 - 200) < 10, name
    turned_picture = opened_rgb(folder / "turned.jpg")
    assert turned_picture.size == (8, 16)  # and what was right is below
    assert turned_picture.getpixel((7, 0))[0] > 150 < turned_picture.getpixel((0, 15))[2]
    found = skipped(tmp_path / "out")
    assert len(found) == len(extracted.problems) == 9
    for name, said in (
        ("float.tif", "cannot be read (ValueError: its brightness is in decimal numbers of no known scale)"),
        ("long.tif", "cannot be read (ValueError: its brightness has 32 bits, or a sign, and no known scale)"),
        ("line.png", "cannot be read (ValueError: 5000 by 1 pixels are a line)"),
        ("program.eps", "cannot be read (it is no picture of a known kind)"),
        ("bomb.png", "cannot be read (DecompressionBombError: Image size (900000000 pixels) exceeds limit"),
        ("empty.jpg", "cannot be read (it is no picture of a known kind)"),
        ("text.jpg", "cannot be read (it is no picture of a known kind)"),
        ("cut.png", "cannot be read ("),
        ("loop", "is a link to a folder"),
    ):
        assert found[f"a/{name}"].startswith(said), name


def test_a_table_may_name_pictures_that_are_not_there(tmp_path: Path) -> None:
    numbered(7).save(tmp_path / "there.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "t.csv").write_text("path,label\nthere.png,a\ngone.png,a\npipe.png,a\n.,b\n")
    assert run(tmp_path / "t.csv", tmp_path / "out").rows == 1
    assert skipped(tmp_path / "out") == {
        "gone.png": "does not exist; check the path",
        "pipe.png": "is no file; check the path",
        ".": "is no file; check the path",
    }


def test_features_that_are_not_finite_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    for number in (1, 2, 3):
        numbered(number).save(tmp_path / "p" / "a" / f"{number}.png")
    real = Gossip.pooled

    def pooled(self: Gossip, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
        features = real(self, stacked)
        features[features[:, 0] == 2, 3] = np.nan
        return features

    monkeypatch.setattr(Gossip, "pooled", pooled)
    run(tmp_path / "p", tmp_path / "out")
    assert load_collection(tmp_path / "out").paths == ("a/1.png", "a/3.png")
    assert "not finite" in skipped(tmp_path / "out")["a/2.png"]


def test_no_picture_that_can_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "p" / "a").mkdir(parents=True)
    (tmp_path / "p" / "a" / "x.jpg").write_text("x")
    with pytest.raises(DataError, match=r"none of 1 pictures can be used; the first: a/x\.jpg cannot be read"):
        run(tmp_path / "p", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_a_sentence_and_the_same_call_goes_on(
    pictures: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unseen import storage

    real, left = storage.save_file, 3

    def save_file(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(storage, "save_file", save_file)
    with pytest.raises(RunError, match="No space left on device"):
        run(pictures, tmp_path / "out")
    assert len(list((tmp_path / "out.unfinished").glob("part-*"))) == 2
    run(pictures, tmp_path / "out")
    assert result(tmp_path / "out") == result(whole)


def test_the_folder_says_what_it_is_of(pictures: Path, whole: Path) -> None:
    about = json.loads((whole / "features.json").read_text())
    assert about["encoder"]["pictures"] == "100"
    assert about["encoder"]["shard"] == "0/1"
