"""The closed-form methods against their definitions, computed another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge
from torch import Tensor

from unseen.errors import SettingsError
from unseen.linear import LinearScores, discriminant
from unseen.methods.class_gaussian import ClassGaussian
from unseen.methods.eszsl import ESZSL
from unseen.methods.prototype import Prototype, class_prototypes
from unseen.scaling import ScaledView

World = Callable[..., ScaledView]


def numpy(tensor: Tensor) -> np.ndarray:
    return tensor.double().numpy()


def seen_means(view: ScaledView) -> np.ndarray:
    return np.array([numpy(view.features[view.labels == k]).mean(axis=0) for k in view.seen.tolist()])


@pytest.fixture
def view(small_world: World) -> ScaledView:
    """With unequal class counts: a mean of class means is not the mean of rows."""
    world = small_world(unit_interval=False)
    kept = torch.tensor([i for i in range(len(world.labels)) if i % 7 != 0])
    return replace(world, features=world.features[kept], labels=world.labels[kept])


# -------------------------------------------------------------------------------------------------------------- linear


def test_linear_scores_are_affine_and_can_be_narrowed() -> None:
    scores = LinearScores(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]), torch.tensor([0.5, 0.0, -1.0]))
    x = torch.tensor([[2.0, 1.0]])
    assert scores(x).tolist() == [[4.5, -1.0, 5.0]]
    assert scores.only(torch.tensor([2, 0]))(x).tolist() == [[5.0, 4.5]]


def test_discriminant_leaves_its_covariance_alone() -> None:
    covariance = torch.eye(3, dtype=torch.float64)
    discriminant(torch.randn(2, 3, dtype=torch.float64), covariance, 0.3)
    assert torch.equal(covariance, torch.eye(3, dtype=torch.float64))


def test_full_shrinkage_is_the_nearest_mean(view: ScaledView) -> None:
    means = torch.from_numpy(seen_means(view))
    spread = torch.randn(24, 24, dtype=torch.float64)
    scores = discriminant(means, spread @ spread.T, shrinkage=1.0)
    nearest = torch.cdist(view.features.double(), means).argmin(dim=1)
    assert torch.equal(scores(view.features).argmax(dim=1), nearest)


# --------------------------------------------------------------------------------------------------------------- ESZSL


@pytest.mark.parametrize(("feature_ridge", "embedding_ridge"), [(1.0, 1.0), (100.0, 0.01), (0.1, 10.0)])
def test_eszsl_solves_its_normal_equations(feature_ridge: float, embedding_ridge: float, view: ScaledView) -> None:
    """The minimiser of ‖XVSᵀ − Y‖² + γ‖VSᵀ‖² + λ‖XV‖² + γλ‖V‖², by one linear system in vec(V)."""
    x, s = numpy(view.features), numpy(view.embeddings[view.seen])
    y = np.full((len(x), len(s)), -1.0)
    for row, label in enumerate(view.labels.tolist()):
        y[row, view.seen.tolist().index(label)] = 1.0
    d, a = x.shape[1], s.shape[1]
    # Row-major vec: vec(A V B) = (A ⊗ Bᵀ) vec(V).
    system = (
        np.kron(x.T @ x, s.T @ s)
        + feature_ridge * np.kron(np.eye(d), s.T @ s)
        + embedding_ridge * np.kron(x.T @ x, np.eye(a))
        + feature_ridge * embedding_ridge * np.eye(d * a)
    )
    v = np.linalg.solve(system, (x.T @ y @ s).ravel()).reshape(d, a)
    scores = ESZSL(feature_ridge, embedding_ridge).fit(view)
    expected = v @ numpy(view.embeddings).T
    np.testing.assert_allclose(numpy(scores.weight).T, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert not scores.bias.any()


# ----------------------------------------------------------------------------------------------------------- prototypes


@pytest.mark.parametrize("ridge", [0.03, 1.0, 30.0])
def test_prototypes_of_unseen_classes_are_a_ridge_regression(ridge: float, view: ScaledView) -> None:
    """The dual form equals the primal one, here solved by scikit-learn."""
    means = seen_means(view)
    average = means.mean(axis=0)
    regression = Ridge(alpha=ridge, fit_intercept=False, solver="cholesky").fit(
        numpy(view.embeddings[view.seen]), means - average
    )
    prototypes = class_prototypes(view, ridge).numpy()
    np.testing.assert_allclose(prototypes[view.seen], means, rtol=1e-12)
    np.testing.assert_allclose(
        prototypes[view.unseen], average + regression.predict(numpy(view.embeddings[view.unseen])), rtol=1e-9, atol=1e-9
    )


def test_strong_ridge_leaves_the_average_of_seen_classes(view: ScaledView) -> None:
    prototypes = class_prototypes(view, 1e12).numpy()
    average = np.tile(seen_means(view).mean(axis=0), (4, 1))
    np.testing.assert_allclose(prototypes[view.unseen], average, atol=1e-8)


def test_prototype_takes_the_nearest(view: ScaledView) -> None:
    prototypes = class_prototypes(view, 0.3)
    x = torch.cat([view.features, torch.randn(50, 24, generator=torch.Generator().manual_seed(1))])
    scores = Prototype(0.3).fit(view)(x)
    distances = torch.stack([(x.double() - prototype).square().sum(dim=1) for prototype in prototypes], dim=1)
    assert torch.equal(scores.argmax(dim=1), distances.argmin(dim=1))
    # Equal to −distance² up to ‖x‖², which no class has a share in.
    torch.testing.assert_close(scores.double() - x.double().square().sum(dim=1, keepdim=True), -distances, rtol=1e-4, atol=1e-3)


# -------------------------------------------------------------------------------------------------------- class-Gaussian


@pytest.mark.parametrize("shrinkage", [0.03, 0.6])
def test_class_gaussian_scores_are_log_densities(shrinkage: float, view: ScaledView) -> None:
    """Up to a term of x alone, they are the log densities of Gaussians with the pooled, shrunk within-class covariance."""
    means = class_prototypes(view, 0.3).numpy()
    x = numpy(view.features)
    scatter = sum(np.outer(row - means[k], row - means[k]) for row, k in zip(x, view.labels.tolist(), strict=True))
    covariance = scatter / (len(x) - len(view.seen))
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 24 * np.eye(24)
    asked = np.concatenate([x[:20], np.random.default_rng(0).normal(size=(10, 24))])
    expected = np.stack([multivariate_normal(mean, shrunk).logpdf(asked) for mean in means], axis=1)
    scores = numpy(ClassGaussian(0.3, shrinkage).fit(view)(torch.from_numpy(asked).float()))
    difference = scores - expected
    spread = difference - difference[:, :1]
    np.testing.assert_allclose(spread, 0, atol=1e-4 * np.abs(expected).max())


def test_one_row_a_class_still_has_scores(view: ScaledView) -> None:
    """No row varies within its class, so the covariance is 0; what is left of the discriminant is the nearest mean."""
    first = torch.tensor([int((view.labels == k).nonzero()[0]) for k in view.seen.tolist()])
    single = replace(view, features=view.features[first], labels=view.labels[first])
    scores = ClassGaussian().fit(single)
    assert scores.weight.isfinite().all()
    assert torch.equal(scores(single.features).argmax(dim=1), single.labels)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ESZSL(feature_ridge=0.0), "feature_ridge=0"),
        (lambda: ESZSL(embedding_ridge=-1.0), "embedding_ridge=-1"),
        (lambda: ClassGaussian(ridge=0.0), "ridge=0"),
        (lambda: ClassGaussian(shrinkage=0.0), "shrinkage=0"),
        (lambda: ClassGaussian(shrinkage=1.5), "shrinkage=1.5"),
        (lambda: ClassGaussian(shrinkage=float("nan")), "shrinkage=nan"),
        (lambda: Prototype(ridge=float("inf")), "ridge=inf"),
    ],
)
def test_settings_without_a_solution_get_one_sentence(build: Callable[[], object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        build()


@pytest.mark.parametrize(
    "solvers",
    [
        [ClassGaussian(ridge, shrinkage) for ridge in (0.1, 1.0, 0.3) for shrinkage in (1.0, 0.1)],
        [ESZSL(feature, embedding) for feature in (1.0, 10.0) for embedding in (10.0, 0.1, 1.0)],
    ],
    ids=["class-gaussian", "eszsl"],
)
def test_settings_that_are_solved_together_are_solved_alike(solvers: list[ClassGaussian | ESZSL], view: ScaledView) -> None:
    for solver, fitted in zip(solvers, type(solvers[0]).fit_all(view, solvers), strict=True):  # type: ignore[arg-type]
        alone = solver.fit(view)
        torch.testing.assert_close(fitted.weight, alone.weight)
        torch.testing.assert_close(fitted.bias, alone.bias)
        assert fitted.weight.shape == (len(view.embeddings), view.features.shape[1])
