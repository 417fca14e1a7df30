"""ZeroShotClassifier as a scikit-learn classifier, and what its classes do when they come, go, move and get rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from classifiers import BY_NAME, same, small
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import unseen
from unseen import DataError, SettingsError, UnseenError, ZeroShotClassifier
from unseen.given import label_like
from unseen.model_selection import ClassFolds, harmonic_mean_scorer
from unseen.recipe import FEW


class World:
    """Fourteen classes whose means follow from their embeddings; ten of them have eight rows each."""

    def __init__(self, d: int = 10, a: int = 6) -> None:
        rng = np.random.default_rng(0)
        self.names = [f"kind {k:02d}" for k in range(14)]
        rng.shuffle(self.names)
        self.map = rng.normal(size=(a, d)) if a != d else np.eye(d)
        self.embeddings = {name: rng.normal(size=a) for name in self.names}
        self.seen, self.unseen = sorted(self.names[:10]), sorted(self.names[10:])
        self.y = np.repeat(self.seen, 8)
        self.X = self.rows(self.y, rng)

    def rows(self, y: Iterable[str], rng: np.random.Generator) -> NDArray[np.float32]:
        means = np.array([self.embeddings[name] for name in y]) @ self.map
        return (means + 0.3 * rng.normal(size=means.shape)).astype(np.float32)

    def take(self, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
        return {name: self.embeddings[name] for name in names}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


# ------------------------------------------------------------------------------------------------------- scikit-learn


FLOAT32 = "scores are float32, whose last bits depend on how many rows are multiplied together; the labels are compared below"


def expected_failures(estimator: ZeroShotClassifier) -> dict[str, str]:
    """Check → why it cannot pass."""
    if estimator.method == "class-gaussian":
        return {}
    return dict.fromkeys(("check_methods_sample_order_invariance", "check_methods_subset_invariance"), FLOAT32)


@parametrize_with_checks(
    [ZeroShotClassifier("class-gaussian"), ZeroShotClassifier(settings={"hidden": 16, "steps": 40, "batch_size": 16})],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_it(estimator: ZeroShotClassifier, check: Any) -> None:
    if "array_api" in str(check):
        pytest.skip("scikit-learn checks array libraries where SCIPY_ARRAY_API is set; torch is tested below")
    check(estimator)


def test_labels_do_not_depend_on_which_rows_are_asked_together(world: World) -> None:
    fitted = small().fit(world.X, world.y, world.embeddings)
    whole = fitted.predict(world.X)
    assert np.array_equal(np.concatenate([fitted.predict(world.X[k : k + 1]) for k in range(len(world.X))]), whole)
    order = np.random.default_rng(0).permutation(len(world.X))
    assert np.array_equal(fitted.predict(world.X[order]), whole[order])


def test_it_works_in_a_pipeline_and_a_search_over_folds_by_class(world: World) -> None:
    folds = ClassFolds(n_splits=2, random_state=0)
    grid = {"zeroshotclassifier__settings": [{"gamma": -1000.0}, {"gamma": 0.3}]}
    pipeline = make_pipeline(StandardScaler(), small("class-gaussian"))
    search = GridSearchCV(pipeline, grid, cv=folds, scoring=harmonic_mean_scorer, error_score="raise")
    search.fit(world.X, world.y, zeroshotclassifier__classes=world.embeddings)
    assert search.best_params_ == {"zeroshotclassifier__settings": {"gamma": 0.3}}, "the other never names an unseen class"
    assert set(search.predict(world.rows(world.unseen, np.random.default_rng(1)))) <= set(world.names)
    assert list(search.best_estimator_[-1].unseen_classes_) == world.unseen

    with sklearn.config_context(enable_metadata_routing=True):
        asked = make_pipeline(StandardScaler(), small("class-gaussian", gamma=0.3).set_fit_request(classes=True))
        params = {"classes": world.embeddings}
        routed = cross_val_score(asked, world.X, world.y, cv=folds, scoring=harmonic_mean_scorer, params=params)
    assert routed.mean() == search.best_score_


def test_a_clone_fits_the_same(world: World) -> None:
    first = small().fit(world.X, world.y, world.embeddings)
    again = clone(first)
    assert not hasattr(again, "classes_")
    assert same(first, again.fit(world.X, world.y, world.embeddings), world.X)
    other = clone(first).set_params(random_state=1).fit(world.X, world.y, world.embeddings)
    assert not np.array_equal(other.decision_function(world.X), first.decision_function(world.X))


# ---------------------------------------------------------------------------------------------------- what may be given


@pytest.mark.parametrize("form", ["float16", "float64", "fortran", "strided", "mapped", "pandas", "torch", "list"])
def test_every_kind_of_array_gives_the_same_labels(form: str, world: World, tmp_path: Path) -> None:
    X = world.X.astype(np.float16).astype(np.float32)  # so that no form loses anything

    def given(x: NDArray[np.float32]) -> Any:
        if form in ("float16", "float64"):
            return x.astype(form)
        if form == "strided":
            wide = np.zeros((len(x), 3 * x.shape[1]), np.float32)
            wide[:, ::3] = x
            return wide[:, ::3]
        if form == "mapped":
            np.save(tmp_path / "x.npy", x)
            return np.load(tmp_path / "x.npy", mmap_mode="r")
        if form == "pandas":
            return pd.DataFrame(x, columns=[f"column {k}" for k in range(x.shape[1])], index=range(5, 5 + len(x)))
        return {"fortran": np.asfortranarray, "torch": torch.from_numpy, "list": lambda rows: rows.tolist()}[form](x)

    y = pd.Series(world.y) if form == "pandas" else world.y
    plain, fitted = (small().fit(x, y, world.embeddings) for x in (X, given(X)))
    assert np.array_equal(fitted.predict(given(X)), plain.predict(X))
    np.testing.assert_allclose(fitted.predict_proba(given(X)), plain.predict_proba(X), atol=1e-6)


def test_a_large_mapped_file_is_never_copied_whole(world: World, tmp_path: Path) -> None:
    fitted = small("class-gaussian").fit(world.X, world.y, world.embeddings)
    big = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(300_000, world.X.shape[1]))
    big[:80] = world.X
    tracemalloc.start()
    predicted = fitted.predict(big)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(predicted[:80], fitted.predict(world.X))
    assert peak - predicted.nbytes < big.nbytes / 2


def test_classes_can_be_given_in_every_way(world: World) -> None:
    table = np.array(list(world.embeddings.values()))
    mapping = small().fit(world.X, world.y, world.embeddings)
    for classes in (
        pd.DataFrame(table, index=list(world.embeddings)),
        pd.DataFrame(table, index=list(world.embeddings)).assign(description="some words", group="a shelf"),
        (list(world.embeddings), table),
        (np.array(list(world.embeddings)), torch.from_numpy(table)),
        {name: world.embeddings[name].tolist() for name in reversed(world.names)},
    ):
        assert same(mapping, small().fit(world.X, world.y, classes), world.X)
    assert list(mapping.classes_) == sorted(world.names)
    assert list(mapping.seen_classes_) == world.seen
    assert list(mapping.unseen_classes_) == world.unseen


def test_without_classes_it_is_an_ordinary_classifier(world: World) -> None:
    for method in ("tfvaegan", "class-gaussian"):
        fitted = small(method).fit(world.X, world.y)
        assert fitted.score(world.X, world.y) > 0.9
        assert not len(fitted.unseen_classes_)
        assert fitted.fitted_.gamma == 0
        with pytest.raises(DataError, match="fitted without `classes`"):
            fitted.add_classes({"okapi": np.ones(10)})


def test_probabilities_and_decisions_say_what_predict_says(world: World) -> None:
    fitted = small("class-gaussian", gamma=0.5).fit(world.X, world.y, world.embeddings)
    scores, shares = fitted.decision_function(world.X), fitted.predict_proba(world.X)
    raw = fitted.fitted_.scores(fitted.fitted_.represent(world.X)).double().numpy()
    seen = np.isin(fitted.classes_, world.seen)
    assert np.array_equal(scores, raw - fitted.fitted_.gamma * seen)
    expected = torch.softmax(torch.from_numpy(scores), dim=1).numpy()
    np.testing.assert_allclose(shares, expected, rtol=1e-12, atol=1e-300)
    assert np.array_equal(fitted.classes_[scores.argmax(axis=1)], fitted.predict(world.X))


class Letters:
    """An encoder that counts letters, so that the tests need no network."""

    name, description = "letters", "counts of letters"

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    @property
    def fingerprint(self) -> str:
        return f"letters {self.shift}"

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        counts = [[1 + text.count(chr(97 + (k + self.shift) % 26)) for k in range(26)] for text in texts]
        return np.array([row / np.linalg.norm(row) for row in counts], np.float32)


def test_classes_can_be_described_in_words(world: World) -> None:
    words = {name: f"{'abcdefghijklmn'[k]} " * (k + 1) + "of the zoo" for k, name in enumerate(world.names)}
    words["okapi"] = ["a striped animal", "a shy animal"]
    asked = small().set_params(encoder=Letters())
    whole = clone(asked).fit(world.X, world.y, words)
    later = clone(asked).fit(world.X, world.y, {name: words[name] for name in world.names})
    assert same(whole, later.add_classes({"okapi": words["okapi"]}), world.X)
    frame = pd.DataFrame({"description": {name: words[name] for name in world.names}})
    assert same(clone(asked).fit(world.X, world.y, frame).add_classes({"okapi": words["okapi"]}), whole, world.X)
    with pytest.raises(DataError, match="embedded by letters; give descriptions"):
        later.add_classes({"quokka": np.ones(26)})
    with pytest.raises(DataError, match="another encoder"):
        later.set_params(encoder=Letters(1)).add_classes({"quokka": "a small marsupial"})


# ----------------------------------------------------------------------------------------------- classes that come later


@pytest.mark.parametrize("method", BY_NAME)
def test_classes_added_later_are_as_if_known_from_the_start(method: str) -> None:
    """To the bit, in whatever order they come; a method whose training looks at unseen classes says that it is not so."""
    world = World(d=6) if method == "prompting" else World()
    whole = small(method).fit(world.X, world.y, world.embeddings)
    begun = small(method).fit(world.X, world.y, world.take([*world.seen, world.unseen[0]]))
    alone = begun.decision_function(world.X)
    looks = whole.fitted_.method is not None and whole.fitted_.method.uses_unseen_embeddings
    if looks:
        with pytest.warns(UserWarning, match="fit anew"):
            begun.add_classes(world.take(world.unseen[1:]))
        assert not same(whole, begun, world.X)
        return
    begun.add_classes(world.take(world.unseen[:0:-1][:1])).add_classes(world.take(world.unseen[1:3]))
    assert same(whole, begun, world.X)
    other = small(method).fit(world.X, world.y, world.take([*world.seen, world.unseen[2]]))
    for name in (world.unseen[0], world.unseen[3], world.unseen[1]):
        other.add_classes(world.take([name]))
    assert same(whole, other, world.X)
    before = begun.remove_classes(world.unseen[1:]).decision_function(world.X)
    assert np.array_equal(before, alone), "and they go as they came"


def test_the_methods_that_warn_are_those_that_declare_it(world: World) -> None:
    assert {"dfca", "bsegn", "sddn"} == {
        name
        for name in BY_NAME
        if name != "prompting"
        and (fitted := small(name).fit(world.X, world.y, world.embeddings).fitted_).method is not None
        and fitted.method.uses_unseen_embeddings
    }


def test_whether_a_change_warns_depends_on_what_training_looked_at(world: World, tmp_path: Path) -> None:
    """SDDN's looks at unseen classes only where there are some; without the last of them it is not what a fit would give."""
    last = world.take(world.unseen[:1])
    with_one = small("sddn").fit(world.X, world.y, world.take(world.seen) | last)
    with_one.save(tmp_path / "model")
    without = small("sddn").fit(world.X, world.y, world.take(world.seen))
    for known in (with_one, ZeroShotClassifier.load(tmp_path / "model")):
        with pytest.warns(UserWarning, match="fit anew"):
            known.remove_classes(world.unseen[:1])
        assert not same(known, without, world.X)
    with_one.save(tmp_path / "model")
    for known in (without, ZeroShotClassifier.load(tmp_path / "model")):
        with pytest.warns(UserWarning, match="fit anew"):
            known.add_classes(last)
    without.remove_classes(world.unseen[:1])  # which is an error if it warns: nothing of that class is left
    assert same(without, small("sddn").fit(world.X, world.y, world.take(world.seen)), world.X)
    with pytest.warns(UserWarning, match="fit anew"):
        known.remove_classes(world.unseen[:1])


@pytest.mark.parametrize("method", ["tfvaegan", "cadavae", "class-gaussian"])
@pytest.mark.parametrize("classifier", ["softmax", "gaussian", "ood"])
def test_every_final_classifier_can_be_fitted_again(method: str, classifier: str, world: World) -> None:
    settings = {"gamma": 0.4} if method == "class-gaussian" else {"classifier": classifier, "gamma": 0.4}
    whole = small(method, **settings).fit(world.X, world.y, world.embeddings)
    none = small(method, **settings).fit(world.X, world.y, world.take(world.seen))
    assert none.fitted_.gamma == 0
    assert none.score(world.X, world.y) > 0.5
    assert same(whole, none.add_classes(world.take(world.unseen)), world.X)
    assert whole.fitted_.gamma != 0


def test_what_blind_chooses_does_not_depend_on_unseen_classes(world: World) -> None:
    whole = ZeroShotClassifier("class-gaussian").fit(world.X, world.y, world.embeddings)
    none = ZeroShotClassifier("class-gaussian").fit(world.X, world.y, world.take(world.seen))
    assert whole._state.settings_from == "folds"
    assert whole.fitted_.gamma != 0
    assert same(whole, none.add_classes(world.take(world.unseen)), world.X)


def test_gamma_is_scaled_with_the_spread_of_the_new_classifier(world: World) -> None:
    """By hand: γ times the standard deviation of (max seen − max unseen) over the training rows."""
    fitted = small("class-gaussian", gamma=0.5).fit(world.X, world.y, world.take([*world.seen, world.unseen[0]]))
    gammas = []
    for added in (world.unseen[1:2], world.unseen[2:]):
        fitted.add_classes(world.take(added))
        x = torch.from_numpy(fitted._state.learned.rows.astype(np.float32))
        scores = fitted.fitted_.scores(x).numpy()
        seen = np.isin(fitted.classes_, world.seen)
        margin = scores[:, seen].max(axis=1) - scores[:, ~seen].max(axis=1)
        assert fitted.fitted_.gamma == pytest.approx(0.5 * margin.std(ddof=1), rel=1e-5)
        gammas.append(fitted.fitted_.gamma)
    assert gammas[0] != gammas[1]


def test_an_updated_class_is_as_if_it_had_always_been_so(world: World) -> None:
    wrong = world.embeddings | {world.unseen[1]: np.full(6, 0.5)}
    whole = small().fit(world.X, world.y, world.embeddings)
    begun = small().fit(world.X, world.y, wrong)
    assert not np.array_equal(begun.decision_function(world.X), whole.decision_function(world.X))
    assert same(whole, begun.update_classes(world.take([world.unseen[1]])), world.X)


def test_a_class_with_rows_can_be_removed(world: World) -> None:
    fitted = small().fit(world.X, world.y, world.embeddings)
    networks = {name: tensor.clone() for name, tensor in fitted._state.learned.networks.items()}
    gone = world.seen[3]
    fitted.remove_classes(gone)
    assert gone not in fitted.classes_
    assert gone not in fitted.predict(world.X)
    rest = world.y != gone
    assert (fitted.predict(world.X[rest]) == world.y[rest]).mean() > 0.6
    for name, tensor in networks.items():
        assert torch.equal(fitted._state.learned.networks[name], tensor)
    with pytest.raises(DataError, match="was trained on rows and removed"):
        fitted.add_classes(world.take([gone]))
    with pytest.raises(DataError, match="fewer than two classes with rows"):
        fitted.remove_classes(fitted.seen_classes_[1:])
    fitted.remove_classes(world.unseen).add_classes(world.take(world.unseen[:1]))
    assert list(fitted.unseen_classes_) == world.unseen[:1]


def test_a_failed_change_changes_nothing(world: World) -> None:
    fitted = small().fit(world.X, world.y, world.take([*world.seen, *world.unseen[:2]]))
    before = fitted._state
    for change in (
        lambda: fitted.add_classes(world.take(world.unseen[2:]) | {"okapi": np.zeros(6)}),
        lambda: fitted.remove_classes([world.unseen[0], "nobody"]),
        lambda: fitted.update_classes(world.take(world.unseen[:1]) | {"nobody": np.ones(6)}),
        lambda: fitted.learn_examples(world.X[:2], [world.unseen[0], "nobody"]),
    ):
        with pytest.raises(DataError):
            change()
        assert fitted._state is before


# ------------------------------------------------------------------------------------------------ classes that get rows


@pytest.mark.parametrize("method", ["tfvaegan", "cadavae", "class-gaussian"])
def test_a_class_leaves_the_unseen_side_with_enough_rows(method: str, world: World) -> None:
    name = world.unseen[0]
    rng = np.random.default_rng(3)
    elsewhere = world.embeddings | {name: -world.embeddings[name]}  # so its synthetic rows are wrong
    longer = {"steps": 200} if method == "cadavae" else {}  # its rows are represented by what it has learned
    fitted = small(method, **longer).fit(world.X, world.y, elsewhere)
    networks = {key: tensor.clone() for key, tensor in fitted._state.learned.networks.items()}
    X, test = world.rows([name] * FEW, rng), world.rows([name] * 40, rng)
    assert fitted.score(test, [name] * 40) < 0.2
    fitted.learn_examples(X[: FEW - 1], [name] * (FEW - 1))
    assert name in fitted.unseen_classes_
    fitted.learn_examples(X[FEW - 1 :], [name])
    assert name in fitted.seen_classes_
    assert fitted.score(test, [name] * 40) > 0.8
    for key, tensor in networks.items():
        assert torch.equal(fitted._state.learned.networks[key], tensor)
    at_once = small(method, **longer).fit(world.X, world.y, elsewhere).learn_examples(X[::-1].copy(), [name] * FEW)
    assert same(at_once, fitted, test), "in whatever order and parts they come"


def test_the_mean_of_a_class_moves_from_words_to_rows(world: World) -> None:
    """With k rows k / (k + 3) of the weight is theirs: the linear discriminant's means say so."""
    name, k = world.unseen[0], 10
    fitted = small(classifier="gaussian", transform="false").fit(world.X, world.y, world.embeddings)
    learned = fitted._state.learned
    X = world.rows([name] * k, np.random.default_rng(3))
    place = list(fitted.classes_).index(name)

    def mean(examples: int) -> NDArray[np.float64]:
        from unseen.final_classifier import classifier_rows
        from unseen.methods.base import stream_seed

        method = learned.build(torch.device("cpu"))
        assert method is not None
        kept = learned.with_examples(X[:examples], np.full(examples, place))
        view = learned._view(*map(torch.from_numpy, (learned.rows.astype(np.float32), learned.labels)),
                             np.arange(14), np.flatnonzero(learned.trained))  # fmt: skip
        few = torch.from_numpy(kept.examples.astype(np.float32)), torch.from_numpy(kept.of_examples)
        rows = classifier_rows(method, view, learned.recipe.synthetic, stream_seed(0, "synthesis"), examples=few)
        own = (rows.labels == place).numpy()
        weights = rows.weights.numpy()[own]
        assert weights.sum() == pytest.approx(learned.recipe.synthetic)
        return weights @ rows.features.numpy()[own] / weights.sum()

    real = learned.scaler.features(X).mean(axis=0)
    np.testing.assert_allclose(mean(k), (3 * mean(0) + k * real) / (3 + k), atol=2e-3)


def test_closed_forms_mix_what_they_regress_with_few_rows(world: World) -> None:
    """One row alone is a bad mean: it was taken for the whole, which told worse than none."""
    name, k = world.unseen[0], 2
    X = world.rows([name] * k, np.random.default_rng(3))
    fitted = small("prototype").fit(world.X, world.y, world.embeddings)
    place = list(fitted.classes_).index(name)
    before = fitted.fitted_.scores.weight[place].numpy() / 2
    real = fitted._state.learned.scaler.features(X).mean(axis=0)
    fitted.learn_examples(X, [name] * k)
    assert name in fitted.unseen_classes_
    weight, bias = fitted.fitted_.scores.weight[place].numpy() / 2, fitted.fitted_.scores.bias[place].item()
    np.testing.assert_allclose(weight, (3 * before + k * real) / (3 + k), atol=2e-3)
    assert bias == pytest.approx(-np.square(weight).sum(), rel=1e-5)
    others = [k for k in range(14) if k != place]
    again = small("prototype").fit(world.X, world.y, world.embeddings).fitted_.scores.weight
    np.testing.assert_allclose(fitted.fitted_.scores.weight[others], again[others], rtol=1e-5)


def test_rows_of_unseen_classes_teach_eszsl_as_rows_of_seen_ones_do(world: World) -> None:
    name = world.unseen[0]
    X = world.rows([name] * 4, np.random.default_rng(3))
    fitted = small("eszsl").fit(world.X, world.y, world.embeddings).learn_examples(X, [name] * 4)
    learned = fitted._state.learned
    as_seen = replace(learned, trained=learned.trained | (learned.classes == name))
    whole, _ = as_seen.fit(torch.device("cpu"))
    np.testing.assert_allclose(fitted.fitted_.scores.weight, whole.scores.weight, rtol=1e-4, atol=1e-6)


def test_rows_of_seen_classes_join_the_others(world: World) -> None:
    """A linear discriminant of rows that came in two parts is that of all of them: only scaling is the first part's."""
    first = np.arange(len(world.X)) % 2 == 0
    parts = small("class-gaussian").fit(world.X[first], world.y[first], world.embeddings)
    rounded = parts._state.learned.scaler.features(world.X).astype(np.float16).astype(np.float32)
    parts.learn_examples(world.X[~first], world.y[~first])
    learned = replace(parts._state.learned, examples=rounded[:0], of_examples=parts._state.learned.labels[:0])
    ids = np.searchsorted(learned.classes, world.y)
    whole, _ = replace(learned, rows=rounded, labels=ids).fit(torch.device("cpu"))
    assert list(parts.seen_classes_) == world.seen
    np.testing.assert_allclose(parts.fitted_.decide(world.X), whole.decide(world.X), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------- sentences


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> None:
    text = str(error.value)
    assert text
    assert "\n" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "no class is given"),
        ({"kind 00": np.ones(6)}, "known already"),
        ({"Kind  00": np.ones(6)}, "same name once case"),
        ({"okapi": np.ones(5)}, "has 5 numbers, but those of the others have 6"),
        ({"okapi": np.ones(6), "quokka": np.ones(6)}, "identical embeddings"),
        ({"okapi": np.ones(6), "quokka": np.ones(5)}, "give it 6 numbers"),
        ({"okapi": np.zeros(6)}, "all zero"),
        ({"okapi": np.full(6, np.nan)}, "NaN"),
        ({"okapi": np.ones((2, 6))}, "has shape"),
        ({"okapi": None}, "has shape|neither"),
        ({"okapi": ["a", 1]}, "neither a description nor numbers"),
        ({"okapi": "a striped animal"}, "given as embeddings"),
        ({"okapi": "a striped animal", "quokka": np.ones(6)}, "all of them one or the other"),
        ({7: np.ones(6)}, "one of that kind"),
        ({7: np.ones(6), "okapi": np.arange(6)}, "texts, or numbers"),
        ({" ": np.ones(6)}, "printable"),
        ({"<b>\n": np.ones(6)}, "printable"),
        ({"okapi\0": np.ones(6)}, r"class 'okapi\\x00' ends with a NUL"),
        ({"kind 00\0": np.ones(6)}, r"class 'kind 00\\x00' ends with a NUL"),
        ((["okapi", "okapi"], np.eye(6)[:2]), "given twice"),
        ((["okapi"], np.eye(6)[:2]), "1 labels but 2"),
        (["okapi"], "given as list"),
        (None, "given as NoneType"),
    ],
)
def test_classes_that_cannot_be_added_are_refused_in_one_sentence(change: Any, said: str, world: World) -> None:
    fitted = small("class-gaussian").fit(world.X, world.y, world.embeddings)
    with pytest.raises(DataError, match=said) as error:
        fitted.add_classes(change)
    one_sentence(error)


def test_other_mistakes_are_one_sentence_each(world: World) -> None:
    X, y, E = world.X, world.y, world.embeddings
    fitted = small("class-gaussian").fit(X, y, E)
    mistakes = {
        "learning needs two classes": lambda: small().fit(X[:8], y[:8], E),
        "not among the classes given": lambda: small().fit(X, y, world.take(world.unseen)),
        "label '1'": lambda: small().fit(X, np.arange(len(X)) % 2 + 1, E),
        "inconsistent numbers": lambda: small().fit(X, y[:-1], E),
        "NaN": lambda: small().fit(np.where(X > 0, X, np.nan), y, E),
        "protocol is auto": lambda: ZeroShotClassifier(protocol="paper").fit(X, y, E),
        "no method": lambda: ZeroShotClassifier("magic").fit(X, y, E),
        "no setting": lambda: ZeroShotClassifier(settings={"magic": 1}).fit(X, y, E),
        "trains on unlabelled rows": lambda: ZeroShotClassifier("tfvaegan-transductive").fit(X, y, E),
        "looks at classes without rows, and none": lambda: small("bsegn").fit(X, y),
        "no device": lambda: ZeroShotClassifier(device="abacus").fit(X, y, E),
        "threads is": lambda: ZeroShotClassifier(threads=0).fit(X, y, E),
        "too few to cut": lambda: ZeroShotClassifier("eszsl", protocol="blind").fit(X[:32], y[:32], E),
        "features": lambda: fitted.predict(X[:, :3]),
        "there is no class 'nobody'": lambda: fitted.remove_classes("nobody"),
        "is given twice": lambda: fitted.remove_classes([world.unseen[0], world.unseen[0]]),
        "no class is given to be": lambda: fitted.remove_classes([]),
        "trained on rows of class": lambda: fitted.update_classes({world.seen[0]: np.ones(6)}),
        "no class 'okapi'": lambda: fitted.update_classes({"okapi": np.ones(6)}),
        "no class 'zebra'": lambda: fitted.learn_examples(X[:1], ["zebra"]),
        "0 sample": lambda: fitted.learn_examples(X[:0], []),
    }
    for said, mistake in mistakes.items():
        with pytest.raises(UnseenError, match=said) as error:
            mistake()
        one_sentence(error)


def test_it_is_handed_out_by_the_package() -> None:
    assert unseen.ZeroShotClassifier is ZeroShotClassifier
    with pytest.raises(AttributeError, match="no attribute 'Magic'"):
        _ = unseen.Magic


# ------------------------------------------------------------------------------------------- labels that are numbers


def numbered(world: World, kind: type = int) -> tuple[ZeroShotClassifier, NDArray[np.float64]]:
    """Fitted on classes 0 … 11 of this kind, and the embedding of another."""
    number = {name: kind(k) for k, name in enumerate([*world.seen, *world.unseen])}
    known = {number[name]: world.embeddings[name] for name in [*world.seen, *world.unseen[:2]]}
    y = [number[name] for name in world.y]
    return small("class-gaussian").fit(world.X, y, known), world.embeddings[world.unseen[2]]


@pytest.mark.parametrize("label", [99, np.uint64(99), np.int16(99), 99.0, np.float32(99)])
def test_a_number_added_is_of_the_kind_of_the_others(label: Any, world: World) -> None:
    plain, said = numbered(world)
    fitted, _ = numbered(world, np.uint64)
    assert same(plain.add_classes({99: said}), fitted.add_classes({label: said}), world.X)
    assert fitted.classes_.dtype == np.int64
    assert fitted.fitted_.names[:2] == ("0", "1"), "what the noise is seeded by"
    assert same(plain.remove_classes(99), fitted.remove_classes(99.0), world.X)


@pytest.mark.parametrize("label", [12.5, float("nan"), float("inf"), True, np.True_, 2**70, 1e300, np.uint64(2**64 - 1), 1j])
def test_a_number_that_is_none_of_the_others_kind_is_refused(label: Any, world: World) -> None:
    fitted, said = numbered(world)
    before = fitted._state
    for change in (lambda: fitted.add_classes({label: said}), lambda: fitted.remove_classes(label)):
        with pytest.raises(DataError) as error:
            change()
        one_sentence(error)
    with pytest.raises(DataError, match="there is no class 'False'"):
        fitted.learn_examples(world.X[:2], np.array([True, False]))
    assert fitted._state is before


def test_whole_numbers_stay_decimal_among_decimal_ones(world: World) -> None:
    fitted, said = numbered(world, float)
    fitted.add_classes({99: said, 12.5: said + 1})
    assert fitted.classes_.dtype == np.float64
    assert fitted.fitted_.names[-2:] == ("12.5", "99.0")
    with pytest.raises(DataError, match="does not fit into 64 bits"):
        fitted.add_classes({2**53 + 1: said - 1})


def test_names_are_numbers_only_where_they_look_so() -> None:
    whole, decimal = np.arange(3), np.arange(3.0)
    assert [label_like(whole, name) for name in ("12", "+7", "-3", "007")] == [12, 7, -3, 7]
    assert [label_like(decimal, name) for name in ("12", ".5", "-3.", "1.25")] == [12.0, 0.5, -3.0, 1.25]
    for labels in (whole, decimal):
        for name in ("1_000", " 12", "12\n", "١٢", "1e3", "nan", "inf", "", "-", ".", "9" * 5000, "０"):
            with pytest.raises(DataError, match=r"is no (whole )?number"):
                label_like(labels, name)
    for name in ("1.5", "9223372036854775808"):
        with pytest.raises(DataError, match="is no whole number"):
            label_like(whole, name)
    assert label_like(np.array(["a"]), "1_0") == "1_0"


def test_classes_that_got_enough_rows_count_where_others_go(world: World) -> None:
    fitted = small("class-gaussian").fit(world.X, world.y, world.embeddings)
    rng = np.random.default_rng(3)
    for name in world.unseen[:2]:
        fitted.learn_examples(world.rows([name] * FEW, rng), [name] * FEW)
    fitted.remove_classes(world.seen)
    assert list(fitted.seen_classes_) == world.unseen[:2]
    assert fitted.score(world.rows(world.unseen[:2] * 9, rng), world.unseen[:2] * 9) > 0.8
    with pytest.raises(DataError, match="fewer than two classes with rows"):
        fitted.remove_classes(world.unseen[0])


# --------------------------------------------------------------------------------------- other ways to say what is meant


def test_an_encoder_is_handed_a_list_and_may_return_one(world: World) -> None:
    class Careful(Letters):
        def encode(self, texts: Iterable[str]) -> Any:
            assert isinstance(texts, list)
            return super().encode(texts).tolist()

    class Short(Letters):
        def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
            return super().encode(list(texts)[1:])

    words = {name: "abcdefghijklmn"[k] * 9 for k, name in enumerate(world.names)}
    asked = small("class-gaussian")
    counted = clone(asked).set_params(encoder=Letters()).fit(world.X, world.y, words)
    assert same(counted, clone(asked).set_params(encoder=Careful()).fit(world.X, world.y, words), world.X)
    frame = pd.DataFrame({"name": words.keys(), "description": words.values()})
    for classes in (pd.Series(words), frame, frame.set_index("name"), frame.set_index(frame["name"])):
        assert same(counted, clone(asked).set_params(encoder=Letters()).fit(world.X, world.y, classes), world.X)
    with pytest.raises(SettingsError, match="int has no encode"):
        counted.set_params(encoder=7).add_classes({"okapi": "a striped animal"})
    with pytest.raises(DataError, match=r"encoder letters made numbers of shape \(13, 26\) of 14 texts"):
        clone(asked).set_params(encoder=Short()).fit(world.X, world.y, words)


@pytest.mark.parametrize(("one", "other"), [("okapi", "Okapi"), ("okapi", "okapi "), ("caf\u00e9", "cafe\u0301")])
def test_described_classes_that_look_alike_are_refused(one: str, other: str, world: World) -> None:
    words = {name: "abcdefghijklmn"[k] * 9 for k, name in enumerate(world.names)}
    both = {one: "striped", other: "shy"}
    asked = small("class-gaussian").set_params(encoder=Letters())
    known = clone(asked).fit(world.X, world.y, words)
    for learning in (lambda: asked.fit(world.X, world.y, words | both), lambda: known.add_classes(both)):
        with pytest.raises(
            DataError, match=f"^classes '{one}' and '{other}' have the same name once case, blanks and"
        ) as error:
            learning()
        one_sentence(error)


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, 7])
def test_a_description_that_is_missing_is_named(nothing: Any, world: World) -> None:
    words: dict[str, Any] = {name: "abcdefghijklmn"[k] * 9 for k, name in enumerate(world.names)} | {world.names[9]: nothing}
    for classes in (words, pd.DataFrame({"description": pd.Series(words)}), pd.Series(words)):
        with pytest.raises(DataError, match=f"class '{world.names[9]}' has no description") as error:
            small().set_params(encoder=Letters()).fit(world.X, world.y, classes)
        one_sentence(error)


@pytest.mark.parametrize(("nothing", "said"), [(None, "row 3 of y has no label"), (np.nan, "NaN")])
def test_a_row_without_a_label_is_refused(nothing: Any, said: str, world: World) -> None:
    y = world.y.astype(object)
    y[3] = nothing
    fitted = small("class-gaussian").fit(world.X, world.y, world.embeddings)
    for learning in (small().fit, fitted.learn_examples):
        with pytest.raises(DataError, match=said) as error:
            learning(world.X, y)
        one_sentence(error)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("settings", value) for value in (["gamma=1"], "gamma=1", {1: 2}, 7)),
        *(("preset", value) for value in (7, b"awa2")),
        *(("image_encoder", value) for value in (7, "magic", "timm:", ["timm:x"], np.ones(3))),
        *(("random_state", value) for value in ("a", np.random.default_rng(0), 1.5, -1.0)),
        *(("encoder", value) for value in (None, 7, Letters, lambda texts: texts)),
    ],
)  # fmt: skip
def test_what_the_constructor_cannot_take_is_refused_before_training(argument: str, value: Any, world: World) -> None:
    if value is Letters:
        value = type("Nameless", (), {"encode": Letters.encode, "description": "", "fingerprint": ""})()
    asked = small("class-gaussian").set_params(**{argument: value})
    with pytest.raises(SettingsError, match=f"^{argument} is") as error:
        asked.fit(world.X, world.y, world.embeddings)
    one_sentence(error)
    assert not hasattr(asked, "classes_")


def test_what_cannot_be_asked_for_is_refused(world: World) -> None:
    fitted = small("class-gaussian").fit(world.X, world.y, world.embeddings)
    mistakes = [(f"count .* not '{count}'", lambda count=count: fitted.explain(world.X, count)) for count in (1.5, -1, 0, "a")]
    for said, mistake in [*mistakes, ("risk is a share", lambda: fitted.answers(world.X, risk="a"))]:
        with pytest.raises(SettingsError, match=said) as error:
            mistake()
        one_sentence(error)
