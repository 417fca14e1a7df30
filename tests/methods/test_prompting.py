"""Zero-shot prompting on a simulated joint space of pictures and texts, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen.asking import build_task
from unseen.data import Dataset, Provenance
from unseen.errors import DataError, SettingsError
from unseen.evaluation.protocol import run
from unseen.methods.prompting import Prompting, refuse_two_spaces
from unseen.scaling import Scaler

World = Callable[..., Dataset]
CPU = torch.device("cpu")
ONE_MODEL = Provenance(feature_extractor="CLIP ViT-B/32", embedding_source="CLIP ViT-B/32, 'a photo of a {}'")


@pytest.fixture
def joint(tiny_world: World) -> Dataset:
    """Pictures and texts in one space of 24 dimensions. As in such models, each kind lies in a cone of its own: a picture is
    its class's text, moved by the gap between the cones, with noise, and of any length."""
    world = tiny_world(seen=8, unseen=4, rows=12, d=24, a=24)
    rng = np.random.default_rng(3)
    gap, common = rng.normal(size=(2, 24))
    texts = rng.normal(size=(12, 24)) + 2 * common
    pictures = texts[world.labels] + gap + rng.normal(size=(len(world.labels), 24))
    pictures *= rng.uniform(0.5, 20, size=(len(pictures), 1))
    return replace(
        world,
        features=pictures.astype(np.float32),
        classes=replace(world.classes, embeddings=texts),
        provenance=ONE_MODEL,
    )


@pytest.mark.parametrize("temperature", [100.0, 2.5])
def test_scores_are_cosines_of_what_the_two_towers_said(temperature: float, joint: Dataset) -> None:
    """Through the scaler, which the protocols put before every method."""
    view = joint.training_view("main")
    scaler = Scaler.fit(view, "l2", centred=False)
    scores = Prompting(temperature).fit(scaler.view(view, CPU))
    asked = joint.test_rows("main").unseen_features
    found = scores(scaler.rows(asked, CPU))
    for i, x in enumerate(asked.astype(np.float64)):
        for k, c in enumerate(view.classes.embeddings):
            cosine = float(x @ c) / float(np.sqrt((x @ x) * (c @ c)))
            assert float(found[i, k]) == pytest.approx(temperature * cosine, abs=1e-4 * temperature)


@pytest.mark.parametrize("protocol", ["blind", "fixed"])
def test_it_recognises_unseen_classes_of_a_joint_space(protocol: str, joint: Dataset) -> None:
    task = build_task(joint, None, "prompting", protocol, 0, {}, None)
    assert (task.recipe.scaling, task.recipe.centred) == ("l2", False)
    row = run(task).row
    assert row["recipe"] == {"scaling": "l2", "centred": False, "gamma": row["gamma"]}
    nearest = [
        int(np.argmax([x @ c / np.linalg.norm(c) for c in joint.classes.embeddings[joint.split().unseen]]))
        for x in joint.features[joint.split().test_unseen]
    ]
    right = joint.split().unseen[nearest] == joint.labels[joint.split().test_unseen]
    assert row["T1"] == pytest.approx(right.mean())  # twelve rows of each class
    assert row["T1"] > 0.6
    assert row["H"] > 0.4


def test_temperature_changes_no_figure(joint: Dataset) -> None:
    figures = [
        run(build_task(joint, None, "prompting", "fixed", 0, {"temperature": t, "gamma": "0.3"}, None)).row for t in ("1", "50")
    ]
    for name in ("T1", "U", "S", "H"):
        assert figures[0][name] == figures[1][name]


def test_a_row_of_zeros_changes_no_score_of_others(joint: Dataset) -> None:
    """It stays one when rows are scaled to one length, so it is no reason to ask for that."""
    first = joint.split().train[0]
    dark = replace(joint, features=np.where(np.arange(len(joint.features))[:, None] == first, 0, joint.features))
    settings = {"gamma": "0.3"}
    figures = [run(build_task(data, None, "prompting", "fixed", 0, settings, None)).row["T1"] for data in (joint, dark)]
    assert figures[0] == figures[1]


def test_widths_that_differ_are_refused(tiny_world: World) -> None:
    with pytest.raises(DataError) as caught:
        run(build_task(replace(tiny_world(), provenance=ONE_MODEL), None, "prompting", "blind", 0, {}, None))
    assert str(caught.value) == (
        "features are 16 numbers long and class embeddings 6, so they have no angle between them; "
        "prompting needs both from one text-image model"
    )


def test_rows_of_different_lengths_are_refused(joint: Dataset) -> None:
    task = build_task(joint, None, "prompting", "fixed", 0, {"scaling": "minmax"}, None)
    with pytest.raises(SettingsError, match=r"^prompting compares directions, .* in length; set scaling=l2$"):
        run(task)


@pytest.mark.parametrize(
    ("features", "embeddings"),
    [
        ("CLIP ViT-B/32", "MiniLM sentences"),
        ("unknown", "unknown"),
        ("", "CLIP ViT-B/32"),
        ("CLIP ViT-B/32, fine-tuned", "CLIP ViT-B/32"),
        ("clip B, tensors 41; image tower", "clip B, tensors 42; text tower"),
        ("clip B, tensors 41; text tower", "clip B, tensors 41; image tower"),
        ("; image tower", "; text tower"),
        ("clip B; fine-tuned", "clip B; text tower"),
    ],
)
def test_two_models_are_refused(features: str, embeddings: str, joint: Dataset) -> None:
    """Equal widths prove nothing."""
    other = replace(joint, provenance=Provenance(feature_extractor=features, embedding_source=embeddings))
    with pytest.raises(DataError) as caught:
        build_task(other, None, "prompting", "blind", 0, {}, None)
    assert f"says that its own are of '{features}' and '{embeddings}'; if one model made both, let" in str(caught.value)


def test_a_refusal_stays_one_sentence_whatever_the_provenance_says(joint: Dataset) -> None:
    long = replace(joint, provenance=Provenance(feature_extractor="a\nb " * 99, embedding_source="other " * 99))
    with pytest.raises(DataError, match=r"^prompting needs .* of 'a b a b .*' and 'other .*'; if one model") as caught:
        refuse_two_spaces(long)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_towers_of_one_model_are_accepted(joint: Dataset) -> None:
    """As the encoders of open_clip write it, whatever else they say of each tower."""
    said = Provenance(
        feature_extractor="open_clip B, SHA-256 of the tensors 41; image tower, open_clip 3.2; on white",
        embedding_source='open_clip B, SHA-256 of the tensors 41; text tower, open_clip_torch 3.3; of "a photo of a {name}"',
    )
    refuse_two_spaces(replace(joint, provenance=said))


@pytest.mark.parametrize("embeddings", ["CLIP ViT-B/32", "clip vit-b/32, 80 prompts averaged"])
def test_one_model_is_accepted(embeddings: str, joint: Dataset) -> None:
    refuse_two_spaces(replace(joint, provenance=Provenance(feature_extractor="CLIP ViT-B/32", embedding_source=embeddings)))
