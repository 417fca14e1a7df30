"""What would help on Grocery more than another method: seen classes, words, or the first real pictures.

    python benchmarks/what_helps.py

class-Gaussian, its settings chosen on folds of the rows that it is given, on all seven splits. Each row changes one thing,
and is scored by T1, accuracy among the split's unseen classes alone: S and H would change with the number of seen classes that
may be answered. Draws, of seen classes or of pictures, are the seeds 0 to 2. Pictures that were learned from are not scored.

What the first pictures are worth (`unseen.recipe.WORTH`) is measured on folds of training rows, three splits and the emoji:
T1 among the classes that play unseen ones, whitened features, ridge and shrinkage 0.3. No test row is looked at for it.

Resumable: what is done stands in benchmarks/results/what_helps.jsonl. `make results` puts the figures into the README and
docs/which-method.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from unseen import Dataset, ZeroShotClassifier, recipe
from unseen.data import open_dataset
from unseen.encoders import embed
from unseen.evaluation.folds import cut_folds
from unseen.evaluation.metrics import per_class_accuracy
from unseen.methods.class_gaussian import ClassGaussian
from unseen.scaling import Scaler

ROOT = Path(__file__).parents[1]
DATA = ROOT / "runs" / "grocery"
ROWS = ROOT / "benchmarks" / "results" / "what_helps.jsonl"
DRAWS = range(3)
WHOLE = ""
SHARES = {"half of the seen classes": 0.5, "a quarter of the seen classes": 0.25}
PICTURES = {"with one real picture": 1, "with two real pictures": 2, "with five real pictures": 5}
WORTHS = (0, 1, 2, 3, 4, 8, 24)
"""0 takes even one row for the mean of its class; with 24 the first counts a twenty-fifth."""
DRAWN = {*SHARES, *PICTURES}
"""What is drawn anew with each seed."""

Score = Callable[[], float]


def scores(data: Dataset, split: str) -> Iterator[tuple[str, int, Score]]:
    """What to measure on a split: its name, the draw, and how."""
    view, test = data.training_view(split), data.test_rows(split)
    names = view.classes.names
    embeddings = dict(zip(names, np.asarray(view.classes.embeddings, np.float64), strict=True))
    of_name_alone = dict(zip(names, embed({name: name for name in names}, prompts=["{name}"]).table.embeddings, strict=True))

    def fitted(seen: Any, embeddings: dict[str, Any]) -> ZeroShotClassifier:
        rows = np.isin(view.labels, seen)
        known = {names[c]: embeddings[names[c]] for c in (*seen, *view.unseen)}
        return ZeroShotClassifier("class-gaussian").fit(view.features[rows], np.array(names)[view.labels[rows]], known)

    def t1(classifier: ZeroShotClassifier, rows: Any) -> float:
        unseen = np.isin(classifier.classes_, np.array(names)[view.unseen])
        decisions = classifier.decision_function(test.unseen_features[rows])[:, unseen]
        predicted = np.array([names.index(name) for name in classifier.classes_[unseen]])[decisions.argmax(axis=1)]
        return per_class_accuracy(test.unseen_labels[rows], predicted)

    everything = np.arange(len(test.unseen_labels))
    whole = cache(lambda: fitted(view.seen, embeddings))

    def some_seen(share: float, draw: int) -> float:
        drawn = np.random.default_rng(draw).permutation(view.seen)[: round(share * len(view.seen))]
        return t1(fitted(np.sort(drawn), embeddings), everything)

    def with_pictures(count: int, draw: int) -> float:
        shuffled = np.random.default_rng(draw).permutation(everything)
        learned = np.sort(np.concatenate([shuffled[test.unseen_labels[shuffled] == c][:count] for c in view.unseen]))
        classifier = copy.copy(whole())
        classifier.learn_examples(test.unseen_features[learned], np.array(names)[test.unseen_labels[learned]])
        return t1(classifier, np.setdiff1d(everything, learned))

    yield WHOLE, 0, lambda: t1(whole(), everything)
    yield "names alone", 0, lambda: t1(fitted(view.seen, of_name_alone), everything)
    for draw in DRAWS:
        for what, share in SHARES.items():
            yield what, draw, lambda share=share, draw=draw: some_seen(share, draw)
        for what, count in PICTURES.items():
            yield what, draw, lambda count=count, draw=draw: with_pictures(count, draw)


def worths(data: Dataset, split: str) -> Iterator[tuple[str, str, int, float]]:
    """Fold, what was done, draw and T1, where each class that plays an unseen one got a few pictures that weigh so much."""
    for number, fold in enumerate(cut_folds(data.training_view(split), 3, 7)):
        scaler = Scaler.fit(fold.view, "whitened", centred=True)
        view, held_out = scaler.view(fold.view, torch.device("cpu")), fold.held_out
        x, y = torch.from_numpy(scaler.features(held_out.unseen_features)), held_out.unseen_labels
        played = np.unique(y)
        for count, draw in product((0, 1, 2, 5, 10), DRAWS):
            shuffled = np.random.default_rng(draw).permutation(len(y))
            learned = np.concatenate([shuffled[y[shuffled] == c][:count] for c in played])
            left = np.setdiff1d(np.arange(len(y)), learned)
            if len(np.unique(y[left])) < len(played):  # too few pictures of some class
                continue
            few = replace(view, examples=(x[learned], torch.from_numpy(y[learned]))) if count else view
            for worth in WORTHS if count else WORTHS[:1]:
                with patch.object(recipe, "WORTH", worth):
                    scores = ClassGaussian(0.3, 0.3).fit(few)(x[left])[:, played]
                t1 = per_class_accuracy(y[left], played[scores.argmax(dim=1).numpy()])
                yield f"{split}, fold {number}", f"{count} pictures worth {worth}" if count else "no picture", draw, t1


def main() -> None:
    data, emoji = open_dataset(str(DATA)), open_dataset("emoji")
    done = {(row["dataset"], row["split"], row["variant"], row["seed"]) for row in read()}
    for split in data.splits:
        for what, draw, score in scores(data, split):
            if ("helped", split, what, draw) not in done:
                keep("helped", split, data.split(split).fingerprint, what, draw, score())
    for folds, split in (*((data, f"random{k}") for k in range(3)), (emoji, "demo")):
        name = f"{folds.name}-folds"
        if not any(of == name and fold.startswith(split) for of, fold, _, _ in done):
            for fold, what, draw, t1 in worths(folds, split):
                keep(name, fold, f"{folds.split(split).fingerprint} {fold}", what, draw, t1)


def keep(dataset: str, split: str, split_hash: str, variant: str, seed: int, t1: float) -> None:
    """Write one row."""
    row = {"dataset": dataset, "split": split, "split_hash": split_hash, "variant": variant, "seed": seed, "T1": t1}
    with ROWS.open("a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    print(row, flush=True)


def read() -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


if __name__ == "__main__":
    main()
