"""The native format: what is written comes back, and what was not written by us is not believed."""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from unseen.data import Dataset, Split, native
from unseen.data.native import load, save
from unseen.errors import DataError, RunError


def assert_same(found: object, wanted: object) -> None:
    """Equal in every field, arrays in dtype, shape and bits."""
    if is_dataclass(wanted):
        assert type(found) is type(wanted)
        for field in fields(wanted):
            assert_same(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert found.tobytes() == wanted.tobytes()
    else:
        assert found == wanted


@pytest.fixture
def several(tiny: Dataset) -> Dataset:
    """`tiny` with a second split, named so that it would sort first."""
    other = Split.from_rows("a: Ünder", tiny.labels, np.array([0, 6]), np.array([1, 2, 7]), np.array([3]), np.array([1, 3]))
    return replace(tiny, splits={**tiny.splits, other.name: other})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_written_comes_back_bit_for_bit(several: Dataset, tmp_path: Path, dtype: Any) -> None:
    wanted = replace(several, features=several.features.astype(dtype), labels=several.labels.astype(np.uint8))
    wanted.save(tmp_path / "d")
    found = Dataset.load(tmp_path / "d")
    assert_same(found, wanted)
    assert found.features_fingerprint == wanted.features_fingerprint
    assert found.split("a: Ünder").fingerprint == wanted.split("a: Ünder").fingerprint
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d"]
    found.save(tmp_path / "again")
    for entry in (tmp_path / "d").iterdir():
        assert (tmp_path / "again" / entry.name).read_bytes() == entry.read_bytes()


def test_without_optional_parts(tiny: Dataset, tmp_path: Path) -> None:
    bare = replace(
        tiny,
        classes=replace(tiny.classes, descriptions=(), groups=()),
        splits={"only": replace(tiny.splits["only"], by_group=False)},
        pictures=None,
        attributions=(),
    )
    save(bare, tmp_path / "d")
    assert_same(load(tmp_path / "d"), bare)


def test_features_in_one_file_are_mapped_and_not_loaded(tiny: Dataset, tmp_path: Path) -> None:
    save(tiny, tmp_path / "d")
    found = load(tmp_path / "d")
    assert isinstance(found.features, np.memmap)
    assert Path(str(found.features.filename)).name == "features.safetensors"
    assert not found.features.flags.owndata
    assert not found.features.flags.writeable


def test_features_in_several_files_are_the_same_features(tiny: Dataset, tmp_path: Path) -> None:
    save(tiny, tmp_path / "d", largest_file=5 * tiny.features[:1].nbytes)
    files = sorted(entry.name for entry in (tmp_path / "d").glob("features*"))
    assert files == ["features-0.safetensors", "features-1.safetensors", "features-2.safetensors"]
    assert len(load_file(tmp_path / "d" / files[2])["features"]) == 2
    assert_same(load(tmp_path / "d"), tiny)


def test_more_than_ten_files_stay_in_order(tiny: Dataset, tmp_path: Path) -> None:
    save(tiny, tmp_path / "d", largest_file=1)
    assert_same(load(tmp_path / "d"), tiny)


def test_a_data_set_can_replace_the_one_it_was_read_from(tiny: Dataset, tmp_path: Path) -> None:
    save(tiny, tmp_path / "d")
    found = load(tmp_path / "d")
    save(replace(found, name="renamed"), tmp_path / "d")
    assert_same(load(tmp_path / "d"), replace(tiny, name="renamed"))


def test_an_invalid_data_set_is_not_written(tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="count from 1"):
        save(replace(tiny, labels=tiny.labels + 1), tmp_path / "d")
    assert not (tmp_path / "d").exists()


# --- what else may be there


@pytest.mark.parametrize("manifest", ['{"format": "something else"}', "[]", "{", None])
def test_a_folder_of_somebody_else_is_not_replaced(tiny: Dataset, tmp_path: Path, manifest: str | None) -> None:
    """`dataset.json` is a common name: such a folder may hold a year's work."""
    (tmp_path / "thesis.txt").write_text("a year's work")
    if manifest is not None:
        (tmp_path / "dataset.json").write_text(manifest)
    with pytest.raises(DataError, match="is not a data set of ours; choose another name, nothing was written"):
        save(tiny, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "a year's work"


def test_a_data_set_of_ours_with_foreign_files_in_it_is_not_replaced(tiny: Dataset, tmp_path: Path) -> None:
    save(tiny, tmp_path / "d")
    (tmp_path / "d" / "thesis.txt").write_text("a year's work")
    with pytest.raises(DataError, match=r"'thesis\.txt', which no data set of ours holds; move it or choose another name"):
        save(tiny, tmp_path / "d")
    assert (tmp_path / "d" / "thesis.txt").read_text() == "a year's work"


def test_a_file_in_the_way_is_not_replaced(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "d").write_text("notes")
    with pytest.raises(DataError, match="is not a data set of ours"):
        save(tiny, tmp_path / "d")
    assert (tmp_path / "d").read_text() == "notes"


def test_an_empty_folder_is_filled(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    save(tiny, tmp_path / "d")
    assert_same(load(tmp_path / "d"), tiny)


@pytest.mark.parametrize("at", ["stream_arrays", "write_arrays", "write_json"])
def test_a_disk_that_fills_up_leaves_the_old_data_set(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    save(tiny, tmp_path / "d")

    def failing(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(native, at, failing)
    with pytest.raises(RunError, match="No space left on device; nothing was changed"):
        save(replace(tiny, features=tiny.features * 2), tmp_path / "d")
    assert_same(load(tmp_path / "d"), tiny)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d"]


# --- damage


@pytest.fixture
def folder(several: Dataset, tmp_path: Path) -> Path:
    save(several, tmp_path / "d")
    return tmp_path / "d"


def test_a_flipped_bit_anywhere_in_the_arrays_is_found(folder: Path) -> None:
    for name in ("features.safetensors", "table.safetensors"):
        good = (folder / name).read_bytes()
        body = 8 + int.from_bytes(good[:8], "little")
        rng = np.random.default_rng(1)
        for place in {body, len(good) - 1, *rng.integers(body, len(good), 20).tolist()}:
            bad = bytearray(good)
            bad[place] ^= 1
            (folder / name).write_bytes(bad)
            with pytest.raises(DataError, match="is not what was written"):
                load(folder)
        (folder / name).write_bytes(good)
    load(folder)


def test_damaged_pictures_are_found(folder: Path) -> None:
    (folder / "pictures").write_bytes(b"\x01sheet")
    with pytest.raises(DataError, match=r"the pictures in .* are not what was written"):
        load(folder)
    (folder / "pictures").unlink()
    with pytest.raises(DataError, match="pictures"):
        load(folder)


@pytest.mark.parametrize("name", ["dataset.json", "features.safetensors", "table.safetensors"])
def test_a_missing_or_truncated_file_is_named(folder: Path, name: str) -> None:
    good = (folder / name).read_bytes()
    for length in (0, 7, len(good) // 2, len(good) - 1):
        (folder / name).write_bytes(good[:length])
        if name == "dataset.json" and length == len(good) - 1:
            continue  # the newline at its end
        with pytest.raises(DataError, match=f"{name} is damaged"):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} does not exist"):
        load(folder)


def manifest_with(folder: Path, **changes: Any) -> Path:
    manifest = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(manifest | changes))
    return folder


def test_foreign_newer_and_absent(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; give the folder that holds"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="is in version 2 of the format and this program reads version 1; update unseen"):
        load(manifest_with(folder, version=2))
    with pytest.raises(DataError, match=r"dataset\.json does not describe a data set of ours; give a folder"):
        load(manifest_with(folder, format="parquet"))
    with pytest.raises(DataError) as caught:
        load(manifest_with(folder, format="unseen-dataset", version="9" * 10_000))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["../d/features.safetensors", "/etc/passwd", "..", "", "a/b", "features-.safetensors", "a\\b", "a\0b", "C:x"]
)
def test_a_manifest_cannot_name_files_outside_its_folder(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"as a file of features, but those .* lie beside it; it was not read"):
        load(manifest_with(folder, feature_files=[name]))


def test_a_manifest_cannot_name_a_class_to_make(folder: Path) -> None:
    for changes in (
        {"provenance": {"__class__": "os.system", "source": "rm"}},
        {"provenance": {"source": "a", "secret": "b"}},
        {"classes": {"__class__": "os.system"}},
    ):
        with pytest.raises(DataError, match="is damaged"):
            load(manifest_with(folder, **changes))


def test_a_manifest_of_a_gigabyte_is_not_read(folder: Path) -> None:
    with (folder / "dataset.json").open("r+b") as file:
        file.truncate(10**9)
    with pytest.raises(DataError, match="larger than 64 MB"):
        load(folder)


def test_arrays_of_other_kinds_with_fitting_checksums_are_refused(folder: Path) -> None:
    """A manifest can be made to fit anything; what it fits must still be a data set."""
    from unseen.storage import fingerprint

    for name, bad in (
        ("labels", np.zeros(12, np.float32)),
        ("labels", np.zeros((), np.int64)),
        ("embeddings", np.zeros((4, 3), bool)),
        ("embeddings", np.zeros((0, 3))),
        ("split0.train", np.zeros((2, 2), np.int64)),
        ("split0.seen", np.zeros((), np.int64)),
        ("split0.unseen", np.array([True, False])),
        ("pictures.rows", np.array([10**6])),
        ("pictures.rows", np.zeros((2, 2))),
    ):
        arrays = load_file(folder / "table.safetensors")
        good = dict(arrays)
        manifest = (folder / "dataset.json").read_text()
        save_file(arrays | {name: bad}, folder / "table.safetensors")
        manifest_with(folder, sha256=json.loads(manifest)["sha256"] | {name: fingerprint(bad)})
        with pytest.raises(DataError):
            load(folder)
        save_file(good, folder / "table.safetensors")
        (folder / "dataset.json").write_text(manifest)
    load(folder)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


STRANGE = [None, "", "x" * 3000, -1, 0, 1.5, 10**30, True, [], [[]], ["x"], {}, {"__class__": "x"}, "../x"]


def test_every_part_of_a_manifest_may_be_strange(folder: Path, several: Dataset) -> None:
    """Each value replaced by each of fourteen others, or left out: our sentence, or a data set that is valid."""
    text = (folder / "dataset.json").read_text()
    manifest = json.loads(text)
    said: list[str] = []
    tried = 0
    for path in places(manifest):
        for strange in [*STRANGE, "leave out"]:
            changed = copy.deepcopy(manifest)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if strange == "leave out":
                del holder[path[-1]]
            else:
                holder[path[-1]] = strange
            (folder / "dataset.json").write_text(json.dumps(changed))
            tried += 1
            try:
                load(folder)
            except DataError as error:
                said.append(str(error))
    assert tried > 500
    assert len(said) > tried / 2
    assert max(len(sentence) for sentence in said) < 800
    assert not any("\n" in sentence for sentence in said)
    (folder / "dataset.json").write_text(text.replace('"tile": 8', '"tile": 1e999'))
    with pytest.raises(DataError):
        load(folder)
    (folder / "dataset.json").write_text(text)
    assert_same(load(folder), several)
