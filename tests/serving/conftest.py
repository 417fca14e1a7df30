"""A small model, and clients of applications that serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import browser  # noqa: F401  # a fixture
from small_server import TOKEN, World
from starlette.testclient import TestClient

from unseen import ZeroShotClassifier
from unseen.serving import create_app


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def classifier(world: World) -> ZeroShotClassifier:
    return world.fitted()


@pytest.fixture
def served(classifier: ZeroShotClassifier) -> Iterator[Callable[..., TestClient]]:
    """`served(token=…, limits=…)`: a client of an application that serves the small model, or another one."""
    clients = []

    def serve(model: Any = None, token: str | None = TOKEN, **options: Any) -> TestClient:
        app = create_app(classifier if model is None else model, token, **options)
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return clients[-1]

    yield serve
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def model_folder(classifier: ZeroShotClassifier, tmp_path: Path) -> Path:
    classifier.save(tmp_path / "model")
    return tmp_path / "model"
