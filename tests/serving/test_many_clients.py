"""Many clients at once, while classes come and go: no answer is wrong, nor of another revision than it says, nor another's."""

from __future__ import annotations

import copy
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_server import BEARER, TOKEN, World, run

from unseen import ZeroShotClassifier
from unseen.serving import create_app
from unseen.serving.served import Snapshot

CLIENTS, REQUESTS, ADDED = 20, 60, 8


def asked(place: tuple[str, int], method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(*place, timeout=30)
    headers = {"Content-Type": "application/json", **BEARER}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    content = json.loads(reply.read())
    connection.close()
    return reply.status, content


def test_answers_are_those_of_the_revision_that_they_name(world: World, classifier: ZeroShotClassifier) -> None:
    """Each client sends rows of its own, of classes known, added meanwhile and never told. The answers are compared with those
    that the classifier gives offline after a fit with the classes that the server had at that revision, as whoever changed them
    saw. Changes come from two sides at once, in no order that anybody knows beforehand."""
    rng = np.random.default_rng(5)
    new = {f"new {k}": rng.normal(size=6) for k in range(ADDED)}
    everything = world.embeddings | new
    known: dict[str, tuple[str, ...]] = {}  # revision → its classes
    records: list[tuple[NDArray[np.float32], dict[str, Any]]] = []
    over = threading.Event()

    def note(place: tuple[str, int]) -> None:
        listed = asked(place, "GET", "/classes")[1]
        known[listed["revision"]] = tuple(one["name"] for one in listed["classes"])

    def change(place: tuple[str, int], mine: list[str]) -> None:
        for name in mine:
            assert asked(place, "POST", "/classes", {"name": name, "embedding": new[name].tolist()})[0] == 201
        assert asked(place, "DELETE", f"/classes/{mine[0].replace(' ', '%20')}")[0] == 200

    def watch(place: tuple[str, int]) -> None:
        while not over.is_set():
            note(place)

    def client(place: tuple[str, int], number: int) -> list[tuple[NDArray[np.float32], dict[str, Any]]]:
        mine = np.random.default_rng(100 + number)
        connection = http.client.HTTPConnection(*place, timeout=30)
        got = []
        for _ in range(REQUESTS):
            chosen = mine.choice(list(everything), size=int(mine.integers(1, 6))).tolist()
            means = np.array([everything[name] for name in chosen]) @ world.map
            rows = (means + 0.3 * mine.normal(size=means.shape)).astype(np.float32)
            connection.request(
                "POST", "/predict?top=20", json.dumps({"features": rows.tolist()}), {"Content-Type": "application/json"}
            )
            reply = connection.getresponse()
            content = json.loads(reply.read())
            assert reply.status == 200, content
            got.append((rows, content))
        connection.close()
        return got

    with run(create_app(classifier, TOKEN)) as place, ThreadPoolExecutor(CLIENTS + 3) as pool:
        note(place)
        watcher = pool.submit(watch, place)
        clients = [pool.submit(client, place, number) for number in range(CLIENTS)]
        names = list(new)
        changers = [pool.submit(change, place, names[side::2]) for side in range(2)]
        try:
            for changer in changers:
                changer.result(60)
            for future in clients:
                records += future.result(60)
        finally:
            over.set()
        watcher.result(60)
        note(place)

    offline: dict[str, ZeroShotClassifier] = {}
    for revision, classes in known.items():
        further = {name: new[name] for name in classes if name in new}
        offline[revision] = copy.copy(classifier).add_classes(further) if further else classifier
        assert tuple(offline[revision].classes_) == classes
    unwatched = {content["revision"] for _, content in records} - known.keys()
    checked = 0
    for rows, content in records:
        assert len(content["answers"]) == len(rows)
        if content["revision"] in unwatched:
            continue
        model = offline[content["revision"]]
        expected = model.answers(rows)
        for k, one in enumerate(content["answers"]):
            order = [guess["class"] for guess in one["top"]]
            assert sorted(order) == list(model.classes_)
            probabilities = dict(zip(model.classes_, expected.probabilities[k], strict=True))
            assert one["class"] == expected.names[k]
            np.testing.assert_allclose([g["probability"] for g in one["top"]], [probabilities[c] for c in order], atol=1e-4)
            assert one["never_seen"] == expected.never_seen[k]
        checked += 1
    assert checked > 0.8 * CLIENTS * REQUESTS, "most answers were of revisions whose classes are known"
    assert len({content["revision"] for _, content in records} - unwatched) >= 3, "classes changed meanwhile"


def test_until_a_change_is_complete_the_old_revision_answers(
    world: World, classifier: ZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new state is held back after the class was learned, and before it is current."""
    learned, gate, made = threading.Event(), threading.Event(), Snapshot.of

    def held(*arguments: Any) -> Snapshot:
        snapshot = made(*arguments)
        learned.set()
        assert gate.wait(20)
        return snapshot

    app = create_app(classifier, TOKEN)
    name, rows = world.later[0], {"features": world.rows([world.later[0]] * 3, np.random.default_rng(3)).tolist()}
    with run(app) as place, ThreadPoolExecutor(1) as pool:
        before = asked(place, "POST", "/predict", rows)[1]
        monkeypatch.setattr(Snapshot, "of", held)
        body = {"name": name, "embedding": world.embeddings[name].tolist()}
        adding = pool.submit(asked, place, "POST", "/classes", body)
        assert learned.wait(20)
        try:
            assert asked(place, "POST", "/predict", rows)[1] == before
            assert name not in [one["name"] for one in asked(place, "GET", "/classes")[1]["classes"]]
        finally:
            gate.set()
        status, changed = adding.result(20)
        after = asked(place, "POST", "/predict", rows)[1]
    assert status == 201
    assert after["revision"] == changed["revision"] != before["revision"]
    assert [one["class"] for one in after["answers"]] == [name] * 3


def test_additions_from_all_sides_are_none_of_them_lost(world: World, classifier: ZeroShotClassifier) -> None:
    """Had two been computed on the same copy, the later would undo the earlier."""
    rng = np.random.default_rng(6)
    new = {f"new {k}": rng.normal(size=6) for k in range(8)}
    with run(create_app(classifier, TOKEN)) as place, ThreadPoolExecutor(8) as pool:
        bodies = [{"name": name, "embedding": embedding.tolist()} for name, embedding in new.items()]
        replies = list(pool.map(lambda body: asked(place, "POST", "/classes", body), bodies))
        listed = asked(place, "GET", "/classes")[1]
    assert [status for status, _ in replies] == [201] * 8
    assert len({content["revision"] for _, content in replies}) == 8
    assert sorted(content["classes"] for _, content in replies) == list(range(13, 21))
    assert {one["name"] for one in listed["classes"]} == {*world.seen, *world.unseen, *new}
    last = max(replies, key=lambda reply: reply[1]["classes"])[1]
    assert listed["revision"] == last["revision"]


def test_of_the_same_class_from_all_sides_one_is_taken(classifier: ZeroShotClassifier) -> None:
    with run(create_app(classifier, TOKEN)) as place, ThreadPoolExecutor(6) as pool:
        body = {"name": "okapi", "embedding": [0.5, 1.0, 0.0, -1.0, 0.25, 2.0]}
        statuses = list(pool.map(lambda _: asked(place, "POST", "/classes", body)[0], range(6)))
    assert sorted(statuses) == [201, 409, 409, 409, 409, 409]
