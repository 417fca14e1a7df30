"""POST /predict: what it answers is what the classifier answers, and what it refuses."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from small_server import World
from starlette.testclient import TestClient

from unseen import ZeroShotClassifier
from unseen.errors import DataError
from unseen.serving import Limits, messages

Served = Callable[..., TestClient]


def sent(rows: Any) -> dict[str, Any]:
    return {"features": np.asarray(rows, float).tolist()}


def test_answers_are_the_classifiers(served: Served, world: World, classifier: ZeroShotClassifier) -> None:
    rows = world.rows(world.seen[:3] + world.unseen, np.random.default_rng(1))
    reply = served().post("/predict?top=3", json=sent(rows))
    assert reply.status_code == 200
    expected = classifier.answers(rows)
    assert {one["never_seen"] for one in reply.json()["answers"]} == {True, False}
    for k, one in enumerate(reply.json()["answers"]):
        order = np.argsort(-expected.probabilities[k])[:3]
        assert one["class"] == expected.names[k] == one["top"][0]["class"]
        assert one["never_seen"] == expected.never_seen[k]
        assert one["confidence"] == pytest.approx(expected.confidence[k], rel=1e-6)
        assert one["unseen_mass"] == pytest.approx(expected.unseen_mass[k], rel=1e-6)
        assert [guess["class"] for guess in one["top"]] == [classifier.classes_[c] for c in order]
        assert [guess["probability"] for guess in one["top"]] == pytest.approx(expected.probabilities[k, order], rel=1e-6)
        assert [guess["seen"] for guess in one["top"]] == [classifier.classes_[c] in world.seen for c in order]


def test_a_revision_is_of_the_model_and_not_of_the_server(served: Served, world: World, classifier: ZeroShotClassifier) -> None:
    one, other = (served(world.fitted()).get("/healthz").json() for _ in range(2))
    assert one == other
    assert one["status"] == "ok"
    assert served(classifier).post("/predict", json=sent(world.X[:1])).json()["revision"] == one["revision"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "the body"),
        ("{", "the body"),
        ("[" * 100_000, "the body"),
        ("[1]", "the body"),
        ("{}", "features"),
        ('{"features": []}', "0 rows"),
        ('{"features": [[]]}', "row 0 has 0 numbers"),
        ('{"features": 3}', "features"),
        ('{"features": [3]}', "features[0]"),
        ('{"features": [["1"]]}', "features[0][0]"),
        ('{"features": [[true]]}', "features[0][0]"),
        ('{"features": [[null]]}', "features[0][0]"),
        ('{"features": [[1, 2]]}', "row 0 has 2 numbers, and the model takes 10"),
        ('{"features": [[0,0,0,0,0,0,0,0,0,0],[0,0,0,0,0,0,0,0,0,NaN]]}', "row 1"),
        ('{"features": [[0,0,0,0,0,0,0,0,0,Infinity]]}', "row 0"),
        ('{"features": [[0,0,0,0,0,0,0,0,0,-1e999]]}', "row 0"),
        ('{"features": [[0,0,0,0,0,0,0,0,0,1e300]]}', "row 0"),
        ('{"features": [[3e38,3e38,3e38,3e38,3e38,3e38,3e38,3e38,3e38,-3e38]]}', "row 0"),
        ('{"features": [[0]], "more": 1}', "more"),
        ("\xff", "the body"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(body: str, said: str, served: Served) -> None:
    reply = served().post("/predict", content=body.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert list(reply.json()) == ["detail"]
    assert said in reply.json()["detail"]
    assert len(reply.json()["detail"]) < 400
    assert "\n" not in reply.json()["detail"]


@pytest.mark.parametrize("top", ["0", "101", "x", "1e3", ""])
def test_a_strange_query_is_one_sentence(top: str, served: Served, world: World) -> None:
    reply = served().post(f"/predict?top={top}", json=sent(world.X[:1]))
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("top is not as it should be: ")


def test_more_rows_than_may_be_are_refused_and_as_many_are_not(served: Served, world: World) -> None:
    client = served(limits=Limits(rows=3))
    assert client.post("/predict", json=sent(world.X[:3])).status_code == 200
    refused = client.post("/predict", json=sent(world.X[:4]))
    assert refused.status_code == 422
    assert "4 rows, and 1 to 3" in refused.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json2"])
def test_json_has_to_be_called_json(kind: str, served: Served, world: World) -> None:
    """A form of another page can send text, and nothing that is called JSON."""
    reply = served().post("/predict", content=json.dumps(sent(world.X[:1])), headers={"Content-Type": kind})
    assert reply.status_code == 415
    assert "application/json" in reply.json()["detail"]


def test_a_model_of_features_takes_no_pictures(served: Served) -> None:
    reply = served().post("/predict", content=b"x", headers={"Content-Type": "image/png"})
    assert reply.status_code == 415
    assert "rows of features" in reply.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PUT", "/predict"), ("GET", "/predict"), ("GET", "/docs")])
def test_what_is_not_there_is_said_in_a_sentence(method: str, path: str, served: Served) -> None:
    reply = served().request(method, path)
    assert reply.status_code in (404, 405)
    assert reply.json() == {"detail": f"there is no {method} {path} here; see /openapi.json"}


def test_a_failure_inside_shows_nothing_of_it(served: Served, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr("unseen.serving.served.Snapshot.answers", broken)
    reply = served().post("/predict", json=sent(world.X[:1]))
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.json()["detail"].startswith("the server failed")


def test_the_interface_describes_itself(served: Served, world: World) -> None:
    """The examples of a request in /openapi.json are of the right form, and all operations say how they fail."""
    client = served()
    described = client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    operations = {(verb, path) for path, verbs in described["paths"].items() for verb in verbs}
    assert operations == {
        ("get", "/healthz"),
        ("post", "/predict"),
        ("get", "/classes"),
        ("post", "/classes"),
        ("delete", "/classes/{name}"),
    }
    for path, verbs in described["paths"].items():
        for verb, operation in verbs.items():
            assert {"4XX", "5XX"} <= operation["responses"].keys()
            assert bool(operation.get("security")) == (path.startswith("/classes") and verb != "get")
    bodies = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "image/*", "multipart/form-data"}
    assert bodies["application/json"]["schema"]["properties"]["features"]["examples"]
    answer = described["components"]["schemas"]["Answer"]
    shown = client.post("/predict", json=sent(world.X[:1])).json()["answers"][0]
    assert answer["properties"].keys() == shown.keys()
    guess = described["components"]["schemas"]["Guess"]
    assert guess["properties"].keys() == shown["top"][0].keys()


@pytest.mark.parametrize("unit", ["{}", '""', '[""]', "[null,null]"])
def test_of_a_million_mistakes_the_first_is_told_at_once(unit: str) -> None:
    """Each listed, they would take most of a minute and gigabytes."""
    body = f'{{"features": [{",".join([unit] * 1_000_000)}]}}'.encode()
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(DataError, match=r"^features\[0\]"):
            messages.feature_rows(body, 10, 4096)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 2


def test_the_mistakes_of_an_embedding_are_told_up_to_the_first() -> None:
    body = json.dumps({"name": "okapi", "embedding": [""] * 1000})
    with pytest.raises(ValidationError) as raised:
        messages.NewClass.model_validate_json(body)
    assert raised.value.error_count() == 1


def test_who_asks_for_the_head_alone_gets_what_a_get_has(served: Served) -> None:
    client = served()
    for path in ("/", "/healthz"):
        head, whole = client.head(path), client.get(path)
        assert head.status_code == 200
        assert head.headers == whole.headers
