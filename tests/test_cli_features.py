"""`unseen features`, as typed, with the packaged network."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import unseen

from unseen.data.collection import load_collection
from unseen.data.pictures import list_pictures
from unseen.encoders import ImageEncoder

Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")


PAGES = Path(__file__).parents[1] / "docs" / "how-to"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 pictures, two batches, and one that is none."""
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(34):
        path = folder / ("cat" if number < 20 else "=dog") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8).repeat(6, 0).repeat(6, 1)).save(path)
    (folder / "cat" / "x\x1b[31m.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def features(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    out = tmp_path_factory.mktemp("features") / "all"
    code, said, messages = unseen("features", pictures, "--out", out)
    assert code == 0, messages
    return out, said, messages


def test_a_folder_becomes_features_of_the_packaged_network(features: tuple[Path, str, str], pictures: Path) -> None:
    out, said, messages = features
    collection = load_collection(out)
    assert collection.labels == ("=dog",) * 14 + ("cat",) * 20
    np.testing.assert_array_equal(collection.features, ImageEncoder().encode(pictures / path for path in collection.paths))
    assert collection.provenance == ImageEncoder.description
    assert said == f"features: {out}\n34 pictures; 1 entries left out or noted, see {out / 'skipped.csv'}\n"
    assert "35 of 35 pictures, " in messages
    assert " pictures/s, 0 s left\n" in messages
    assert r"note: cat/x\x1b[31m.jpg cannot be read (it is no picture of a known kind)" in messages
    assert "\x1b[31m.jpg" not in messages


def test_json_is_all_of_standard_output(features: tuple[Path, str, str], pictures: Path) -> None:
    code, said, _ = unseen("features", pictures, "--out", features[0], "--json")
    told = json.loads(said)
    assert (code, told["rows"], [entry["path"] for entry in told["skipped"]]) == (0, 34, [r"cat/x\x1b[31m.jpg"])


def test_shards_merge_to_the_same_files(features: tuple[Path, str, str], pictures: Path, tmp_path: Path) -> None:
    for index in (0, 1):
        assert unseen("features", pictures, "--out", tmp_path / str(index), "--shard", f"{index}/2", "--threads", 1)[0] == 0
    code, said, _ = unseen("features", "merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "merged")
    assert (code, said.splitlines()[0]) == (0, f"features: {tmp_path / 'merged'}")
    for name in ("features.safetensors", "features.json", "rows.csv", "skipped.csv"):
        assert (tmp_path / "merged" / name).read_bytes() == (features[0] / name).read_bytes()


def test_a_shard_is_no_data_set(pictures: Path, tmp_path: Path) -> None:
    assert unseen("features", pictures, "--out", tmp_path / "part", "--shard", "0/2")[0] == 0
    (tmp_path / "c.csv").write_text("name,x\ncat,1\n=dog,2\n")
    code, _, messages = unseen(
        "data", "build", "--features", tmp_path / "part", "--classes", tmp_path / "c.csv", "--out", tmp_path / "d"
    )
    assert (code, messages.count("\n")) == (1, 1)
    assert messages.endswith(
        "part holds shard 0/2 of a collection; put all shards together with `unseen features merge` first\n"
    )
    assert not (tmp_path / "d").exists()


def test_the_shards_of_the_page_are_the_whole(
    features: tuple[Path, str, str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [commands] = re.findall(r"```console\n([^`]*merge[^`]*)```", (PAGES / "very-large-collections.md").read_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(pictures)
    for line in commands.splitlines():
        code, _, messages = unseen(*shlex.split(line)[1:])
        assert code == 0, messages
    for name in ("features.safetensors", "features.json", "rows.csv", "skipped.csv"):
        assert (tmp_path / "features" / name).read_bytes() == (features[0] / name).read_bytes()


def test_folders_and_tables_as_the_page_lays_them_out(tmp_path: Path) -> None:
    [layout] = re.findall(r"```text\n(pictures/horse.*?)```", (PAGES / "own-images.md").read_text(), re.DOTALL)
    columns = [line.split() for line in layout.splitlines()]
    for path, _ in columns:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    (tmp_path / "table.csv").write_text("\n".join(line for _, line in columns))
    folder, table = list_pictures(tmp_path / "pictures"), list_pictures(tmp_path / "table.csv")
    assert list(zip(folder.paths, folder.labels, strict=True)) == [
        ("duck/1.jpg", "duck"),
        ("horse/1.jpg", "horse"),
        ("horse/stable/7.png", "horse"),
    ]
    assert list(zip(table.paths, table.labels, strict=True)) == [("scans/0001.png", "horse"), ("scans/0002.png", "duck")]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 1, "nowhere cannot be opened (No such file or directory); check the path"),
        (["P", "--shard", "2/2"], 2, "--shard 2/2 is no shard; they are counted from 0, the last one of 2 is 1/2"),
        (
            ["P", "--shard", "0/0"],
            2,
            "--shard 0/0 is no shard; they are counted from 0, as 0/4, 1/4, 2/4 and 3/4 are of four\n",
        ),
        (["P", "--shard", "4"], 2, "--shard 4 is no shard; they are counted from 0, as 0/4, 1/4, 2/4 and 3/4 are of four\n"),
        (["P", "--shard", "0/3"], 2, "shard 0/3 of 35 pictures is empty, as they are 2 batches of 32; use fewer shards"),
        (
            ["P", "--encoder", "resnet"],
            2,
            "there is no encoder 'resnet'; there are efficientnet-lite0, timm:NAME and open_clip:NAME",
        ),
        (["P", "--weights", "x.safetensors"], 2, "efficientnet-lite0 has weights of its own and runs on the CPU; leave out"),
        (["P", "--threads", "0"], 2, "--threads must be 1 or more"),
        (["P", "--engine", "slurm"], 2, "there is no engine 'slurm'; there are local, ray"),
        (["P", "--workers", "2"], 2, "--workers and --address are for --engine ray; leave them out"),
        (["P", "--device", "tpu"], 2, "there is no device 'tpu'; there are cpu, cuda"),
        (["P", "P"], 2, "one folder or table of pictures is expected, and 2 are given; to merge, type merge first"),
        (["merge", "--shard", "0/2"], 2, "merge puts finished shards together and takes no --shard; leave it out"),
        (["merge"], 1, "there is nothing to merge; give the folders of all shards"),
        (["merge", "nowhere"], 1, "nowhere does not exist; check the name"),
    ],
)
def test_mistakes_get_one_sentence(words: list[str], code: int, said: str, pictures: Path, tmp_path: Path) -> None:
    typed = [str(pictures) if word == "P" else word for word in words]
    found, out, messages = unseen("features", *typed, "--out", tmp_path / "out")
    assert (found, out, messages.count("\n")) == (code, "", 1), messages
    assert messages.startswith(f"error: {said}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["P"], ["merge", "P"]])
@pytest.mark.parametrize("out", ["", ".", "..", "/"])
def test_an_out_that_names_no_folder_gets_one_sentence(
    out: str, words: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    typed = [str(pictures) if word == "P" else word for word in words]
    code, said, messages = unseen("features", *typed, "--out", out)
    assert (code, said, messages.count("\n")) == (1, "", 1), messages
    assert messages == "error: --out is the folder that you are in, or one above it; give the features a name of their own\n"
    assert not list((tmp_path / "here").iterdir())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["here"]


@pytest.mark.parametrize("encoder", ["timm:resnet50", "open_clip:ViT-B-32:openai"])
def test_without_the_extra_backbones_a_sentence_says_so(
    encoder: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    code, _, messages = unseen("features", pictures, "--encoder", encoder, "--out", tmp_path / "out")
    assert code == 1
    assert messages == (
        "error: models of timm and open_clip need the package 'torchvision'; run: pip install 'unseen[backbones]'\n"
    )


def test_ctrl_c_says_how_to_go_on(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unseen.extraction.write_arrays", stop)
        code, _, messages = unseen("features", pictures, "--out", tmp_path / "out")
    assert code == 130
    assert f"stopped; what is done is kept; to go on, type: unseen features {pictures} --out {tmp_path / 'out'}\n" in messages
    assert unseen("features", pictures, "--out", tmp_path / "out")[0] == 0
