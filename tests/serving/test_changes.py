"""Classes that come and go over HTTP: by whom, how, and what is answered and saved afterwards."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_server import BEARER, World
from starlette.testclient import TestClient

from unseen import ZeroShotClassifier
from unseen.errors import RunError, SettingsError
from unseen.serving import Limits, create_app
from unseen.serving.served import Snapshot
from unseen.storage import alone

Served = Callable[..., TestClient]


def told(world: World, name: str) -> dict[str, Any]:
    return {"name": name, "embedding": world.embeddings[name].tolist()}


def test_a_class_is_added_recognised_and_removed(served: Served, world: World, classifier: ZeroShotClassifier) -> None:
    client, name = served(), world.later[0]
    rows = {"features": world.rows([name] * 4, np.random.default_rng(3)).tolist()}
    before = client.get("/classes").json()
    assert name not in [known["name"] for known in before["classes"]]

    added = client.post("/classes", json=told(world, name), headers=BEARER)
    assert added.status_code == 201
    assert added.json()["classes"] == 13
    reply = client.post("/predict", json=rows).json()
    assert reply["revision"] == added.json()["revision"] != before["revision"]
    assert [one["class"] for one in reply["answers"]] == [name] * 4
    assert all(one["never_seen"] for one in reply["answers"])

    listed = client.get("/classes").json()
    assert listed["revision"] == reply["revision"]
    (new,) = (known for known in listed["classes"] if known["name"] == name)
    assert new["seen"] is False
    assert new["added"].endswith("+00:00")
    assert {known["added"] for known in listed["classes"] if known["name"] != name} == {None}
    assert [known["name"] for known in listed["classes"]] == sorted([*world.seen, *world.unseen, name])

    removed = client.delete(f"/classes/{name}", headers=BEARER)
    assert removed.status_code == 200
    assert removed.json() == {"revision": before["revision"], "classes": 12}
    assert client.get("/classes").json() == before
    assert name not in classifier.classes_, "the classifier that was given is not changed"


def test_the_revision_after_additions_does_not_depend_on_their_order(served: Served, world: World) -> None:
    revisions = set()
    for order in (world.later, world.later[::-1]):
        client = served()
        for name in order:
            last = client.post("/classes", json=told(world, name), headers=BEARER)
        revisions.add(last.json()["revision"])
    offline = copy.copy(world.fitted()).add_classes({name: world.embeddings[name] for name in world.later})
    assert revisions == {Snapshot.of(offline).revision}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer a-token-for-the-test"},
        {"Authorization": "Bearer a-token-for-the-tests2"},
        {"Authorization": "Bearer A-TOKEN-FOR-THE-TESTS"},
        {"Authorization": "Basic a-token-for-the-tests"},
        {"Authorization": "a-token-for-the-tests"},
        {"Authorization": "Bearer ä-token"},
        {"Cookie": "token=a-token-for-the-tests"},
    ],
)
def test_nobody_changes_classes_without_the_token(headers: dict[str, str], served: Served, world: World) -> None:
    client = served()
    encoded = {name: value.encode() for name, value in headers.items()}
    before = client.get("/classes").json()
    for reply in (
        client.post("/classes", json=told(world, world.later[0]), headers=encoded),
        client.post("/classes", content=b"{", headers=encoded),
        client.delete(f"/classes/{world.unseen[0]}", headers=encoded),
    ):
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert "token" in reply.json()["detail"]
    assert client.get("/classes").json() == before


def test_without_a_token_of_its_own_a_server_takes_no_classes(served: Served, world: World) -> None:
    client = served(token=None)
    for reply in (
        client.post("/classes", json=told(world, world.later[0]), headers={"Authorization": "Bearer None"}),
        client.delete(f"/classes/{world.unseen[0]}", headers=BEARER),
    ):
        assert reply.status_code == 403
        assert "started without a token" in reply.json()["detail"]
    listed = client.get("/classes").json()
    assert listed["new_classes"] is None
    assert "started without a token" in listed["why_not"]


@pytest.mark.parametrize("token", ["", "short", "with a line\nbreak in it", "ünprintable-in-ascii-x"])
def test_a_token_that_can_be_guessed_is_refused(token: str, classifier: ZeroShotClassifier) -> None:
    with pytest.raises(SettingsError, match="16 or more printable ASCII"):
        create_app(classifier, token)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "kind 03", "embedding": [0.5] * 6}, 409, "is known already"),
        ({"name": "kind 11", "embedding": [0.5] * 6}, 409, "is known already"),
        ({"name": "KIND  11", "embedding": [0.5] * 6}, 422, "same name once case"),
        ({"name": "okapi", "description": "striped"}, 422, "by its embedding"),
        ({"name": "okapi"}, 422, "by its embedding"),
        ({"name": "okapi", "description": "striped", "embedding": [0.5] * 6}, 422, "by its embedding"),
        ({"name": "okapi", "embedding": [0.5] * 5}, 422, "5 numbers"),
        ({"name": "okapi", "embedding": []}, 422, "shape"),
        ({"name": "okapi", "embedding": [0.0] * 6}, 422, "all zero"),
        ({"name": "okapi", "embedding": [1e300] * 6}, 422, "infinity"),
        ({"name": "", "embedding": [0.5] * 6}, 422, "name"),
        ({"name": "  ", "embedding": [0.5] * 6}, 422, "printable"),
        ({"name": "a\u202eb", "embedding": [0.5] * 6}, 422, "printable"),
        ({"name": "x" * 201, "embedding": [0.5] * 6}, 422, "201 characters, and 200"),
        ({"name": "okapi", "description": "x" * 4001}, 422, "4001 characters, and 4000"),
        ({"name": 3, "embedding": [0.5] * 6}, 422, "name"),
        ({"name": "okapi", "embedding": [0.5] * 6, "seen": True}, 422, "seen"),
        ([], 422, "the body"),
    ],
)
def test_a_class_that_cannot_be_learned_is_one_sentence(body: Any, status: int, said: str, served: Served) -> None:
    client = served()
    before = client.get("/classes").json()
    reply = client.post("/classes", json=body, headers=BEARER)
    assert reply.status_code == status
    assert list(reply.json()) == ["detail"]
    assert said in reply.json()["detail"]
    assert client.get("/classes").json() == before


def test_json_has_to_be_called_json(served: Served, world: World) -> None:
    headers = {"Content-Type": "text/plain", **BEARER}
    assert served().post("/classes", content=b"{}", headers=headers).status_code == 415


def test_only_classes_that_were_never_seen_are_removed(served: Served, world: World) -> None:
    client = served()
    refused = client.delete(f"/classes/{world.seen[0]}", headers=BEARER)
    assert refused.status_code == 409
    assert "learned from examples" in refused.json()["detail"]
    missing = client.delete("/classes/a%2Fb%20%3Cb%3E", headers=BEARER)
    assert missing.status_code == 409
    assert "no class 'a/b <b>'" in missing.json()["detail"]


def test_a_name_may_hold_anything_that_a_path_means_something_by(served: Served, world: World) -> None:
    client, name = served(), "a/b?c#d é"
    assert client.post("/classes", json=told(world, world.later[0]) | {"name": name}, headers=BEARER).status_code == 201
    assert name in [known["name"] for known in client.get("/classes").json()["classes"]]
    assert client.delete("/classes/a%2Fb%3Fc%23d%20%C3%A9", headers=BEARER).status_code == 200


def test_a_model_has_no_more_classes_than_it_may(served: Served, world: World) -> None:
    client = served(limits=Limits(classes=13))
    assert client.post("/classes", json=told(world, world.later[0]), headers=BEARER).status_code == 201
    refused = client.post("/classes", json=told(world, world.later[1]), headers=BEARER)
    assert refused.status_code == 409
    assert "13 classes already" in refused.json()["detail"]


def test_numbered_classes_are_named_by_their_numbers(served: Served, world: World) -> None:
    numbers = {name: k for k, name in enumerate(world.names)}
    classes = {numbers[name]: world.embeddings[name] for name in world.seen + world.unseen}
    model = ZeroShotClassifier("class-gaussian", protocol="fixed").fit(world.X, [numbers[y] for y in world.y], classes=classes)
    client = served(model)
    embedding = world.embeddings[world.later[0]].tolist()
    assert client.post("/classes", json={"name": "012", "embedding": embedding}, headers=BEARER).status_code == 201
    (new,) = (known for known in client.get("/classes").json()["classes"] if known["added"])
    assert new["name"] == "12"
    assert client.post("/classes", json={"name": "0012", "embedding": embedding}, headers=BEARER).status_code == 409
    for name in ("okapi", "1.5", "99999999999999999999"):
        refused = client.post("/classes", json={"name": name, "embedding": embedding}, headers=BEARER)
        assert refused.status_code == 422
        assert "is no whole number" in refused.json()["detail"]
    assert client.delete("/classes/12", headers=BEARER).status_code == 200


@pytest.mark.parametrize(("kind", "typed"), [(float, ["30", "30.0", "030"]), (int, ["30", "030", "+30"])])
def test_a_number_is_removed_as_it_may_be_added(kind: type, typed: list[str], served: Served, world: World) -> None:
    numbers = {name: kind(k) for k, name in enumerate(world.names)}
    classes = {numbers[name]: world.embeddings[name] for name in world.seen + world.unseen}
    model = ZeroShotClassifier("class-gaussian", protocol="fixed").fit(world.X, [numbers[y] for y in world.y], classes=classes)
    client, embedding = served(model), world.embeddings[world.later[0]].tolist()
    before = client.get("/classes").json()
    for name in typed:
        assert client.post("/classes", json={"name": "30", "embedding": embedding}, headers=BEARER).status_code == 201
        assert client.delete(f"/classes/{name}", headers=BEARER).status_code == 200
        assert client.get("/classes").json() == before
    assert client.delete(f"/classes/{numbers[world.seen[0]]}", headers=BEARER).status_code == 409
    for name in ("31", "okapi", "99999999999999999999"):
        missing = client.delete(f"/classes/{name}", headers=BEARER)
        assert missing.status_code == 409
        assert missing.json()["detail"] == f"there is no class {name!r}; GET /classes lists them"


def test_models_that_learn_nothing_say_why(
    served: Served, world: World, tmp_path: Path, classifier: ZeroShotClassifier
) -> None:
    classifier.save(tmp_path / "inference", inference_only=True)
    one_hot = ZeroShotClassifier("class-gaussian", protocol="fixed").fit(world.X, world.y)
    for model, why in ((tmp_path / "inference", "saved for inference only"), (one_hot, "without descriptions")):
        client = served(model)
        assert why in client.get("/classes").json()["why_not"]
        refused = client.post("/classes", json=told(world, world.later[0]), headers=BEARER)
        assert refused.status_code == 409
        assert why in refused.json()["detail"]


def test_changes_reach_the_folder_only_where_that_is_asked_for(served: Served, world: World, model_folder: Path) -> None:
    name = world.later[0]
    before = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    served(model_folder).post("/classes", json=told(world, name), headers=BEARER)
    assert {path.name: path.read_bytes() for path in model_folder.iterdir()} == before

    client = served(model_folder, save=True)
    revision = client.post("/classes", json=told(world, name), headers=BEARER).json()["revision"]
    again = ZeroShotClassifier.load(model_folder)
    assert name in again.unseen_classes_
    assert Snapshot.of(again).revision == revision
    client.delete(f"/classes/{name}", headers=BEARER)
    assert name not in ZeroShotClassifier.load(model_folder).classes_


def test_a_change_that_cannot_be_saved_did_not_happen(
    served: Served, world: World, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served(model_folder, save=True)
    before = client.get("/classes").json()

    def full(*_: object) -> None:
        raise RunError("cannot write model (No space left on device); make room")

    monkeypatch.setattr(ZeroShotClassifier, "save", full)
    reply = client.post("/classes", json=told(world, world.later[0]), headers=BEARER)
    assert reply.status_code == 500
    assert reply.json() == {"detail": "cannot write model (No space left on device); make room"}
    assert client.get("/classes").json() == before


def test_only_a_folder_is_saved_back(classifier: ZeroShotClassifier) -> None:
    with pytest.raises(SettingsError, match="only a model in a folder"):
        create_app(classifier, None, save=True)


def test_an_exported_classifier_is_served_and_learns_nothing(
    served: Served, world: World, classifier: ZeroShotClassifier, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra 'images' is not installed")
    from unseen.export import export_onnx

    export_onnx(classifier.fitted_, tmp_path / "model.onnx")
    client = served(tmp_path / "model.onnx")
    rows = world.rows(world.seen[:3] + world.unseen, np.random.default_rng(1))
    answers = client.post("/predict", json={"features": rows.tolist()}).json()["answers"]
    expected = classifier.answers(rows)
    assert [one["class"] for one in answers] == expected.names
    assert [one["unseen_mass"] for one in answers] == pytest.approx(expected.unseen_mass, abs=1e-5)
    listed = client.get("/classes").json()
    assert listed["takes"] == ["features"]
    assert listed["features"] == 10
    assert "exported" in listed["why_not"]
    refused = client.post("/classes", json=told(world, world.later[0]), headers=BEARER)
    assert refused.status_code == 409
    assert "exported" in refused.json()["detail"]
    with pytest.raises(SettingsError, match="only a model in a folder"):
        create_app(tmp_path / "model.onnx", None, save=True)


def test_what_a_command_changed_meanwhile_is_not_undone(served: Served, world: World, model_folder: Path) -> None:
    """After a change of its own the server goes on; after somebody else's it changes nothing, until it is started again."""
    one, other, third = world.later[0], world.later[1], {"name": "okapi", "embedding": [0.5, 1.0, 0.0, -1.0, 0.25, 2.0]}
    client = served(model_folder, save=True)
    assert client.post("/classes", json=told(world, one), headers=BEARER).status_code == 201
    assert client.post("/classes", json=third, headers=BEARER).status_code == 201
    ZeroShotClassifier.load(model_folder).add_classes({other: world.embeddings[other]}).save(model_folder)
    on_disk = {path.name: path.read_bytes() for path in model_folder.iterdir()}

    before = client.get("/classes").json()
    for refused in (
        client.post("/classes", json=told(world, other), headers=BEARER),
        client.delete(f"/classes/{one}", headers=BEARER),
    ):
        assert refused.status_code == 409
        assert refused.json() == {"detail": "the model was changed on disk; restart the server"}
    assert client.get("/classes").json() == before
    assert {path.name: path.read_bytes() for path in model_folder.iterdir()} == on_disk
    assert served(model_folder, save=True).delete(f"/classes/{other}", headers=BEARER).status_code == 200

    shutil.rmtree(model_folder)
    assert client.delete(f"/classes/{one}", headers=BEARER).status_code == 409
    assert not model_folder.exists()


def test_while_a_command_changes_the_folder_the_server_does_not(served: Served, world: World, model_folder: Path) -> None:
    """Nor a command, while the server does."""
    client = served(model_folder, save=True)
    with alone(model_folder / "model.json"):
        refused = client.post("/classes", json=told(world, world.later[0]), headers=BEARER)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "another command is changing" in refused.json()["detail"]
    save, refusals = ZeroShotClassifier.save, []

    def held(self: ZeroShotClassifier, folder: Path) -> None:
        with pytest.raises(RunError, match="another command is changing"), alone(folder / "model.json"):
            pass
        refusals.append(folder)
        save(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZeroShotClassifier, "save", held)
        assert client.post("/classes", json=told(world, world.later[0]), headers=BEARER).status_code == 201
    assert refusals == [model_folder]


def test_a_class_without_a_word_about_it_is_asked_for_one(
    served: Served, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ZeroShotClassifier, "told_by_", "description")
    client = served()
    for text in ("", " \n"):
        reply = client.post("/classes", json={"name": "okapi", "description": text}, headers=BEARER)
        assert reply.status_code == 422
        assert reply.json()["detail"].endswith("give the class a description")


@pytest.mark.parametrize("name", [".", "..", "a/../b", "./a", "a/."])
def test_a_name_that_clients_take_out_of_an_address_is_refused(name: str, served: Served, world: World) -> None:
    reply = served().post("/classes", json=told(world, world.later[0]) | {"name": name}, headers=BEARER)
    assert reply.status_code == 422
    assert "choose another" in reply.json()["detail"]
