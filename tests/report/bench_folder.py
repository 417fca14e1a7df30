"""Bench folders, made without data or training: what `unseen bench` leaves behind, at any size and with any names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("eszsl", "class-gaussian", "tfvaegan", "gsmflow", "dfca")
CLOSED_FORM = ("eszsl", "class-gaussian")
DATASETS = {"awa2": (40, 10), "apy": (20, 12), "cub": (150, 50), "flo": (82, 20), "sun": (645, 72), "grocery": (65, 16)}
"""Name → seen and unseen classes, as many as the benchmarks of these names have."""
TERMS = {"tfvaegan": ("D", "G", "reconstruction", "KL", "R"), "gsmflow": ("likelihood", "prototype"), "dfca": ("D", "G", "C")}
COMMAND = "unseen bench --methods all --datasets all --seeds 5 --protocol blind --out runs/bench"
SKILL = {"eszsl": 0.35, "class-gaussian": 0.5, "tfvaegan": 0.53, "gsmflow": 0.55, "dfca": 0.47}


def make_bench(
    folder: Path,
    methods: Sequence[str] = METHODS,
    datasets: Mapping[str, tuple[int, int]] = DATASETS,
    splits: Sequence[str] = ("proposed",),
    seeds: int = 5,
    protocols: Sequence[str] = ("blind",),
    variants: Mapping[str, Sequence[str]] | None = None,
    class_names: Sequence[str] = (),
) -> Path:
    """Write a finished bench: every method on every data set and split with every seed, and variants of some methods."""
    for dataset, (seen, unseen) in datasets.items():
        for split in splits:
            names = [f"{dataset} class {k}" for k in range(seen + unseen)]
            held_out = np.sort(_random(dataset, split).permutation(seen + unseen)[:unseen])
            names = [class_names[k] if k < len(class_names) else name for k, name in enumerate(names)]
            for method in methods:
                for protocol in protocols:
                    for variant in ("", *((variants or {}).get(method, ()))):
                        for seed in range(seeds):
                            write_task(folder, method, dataset, split, seed, protocol, variant, names, held_out)
    write(folder / "bench.json", {"format": "unseen-bench", "version": 1, "commands": [COMMAND]})
    return folder


def write_task(
    folder: Path,
    method: str,
    dataset: str,
    split: str,
    seed: int,
    protocol: str,
    variant: str,
    names: Sequence[str],
    held_out: Any,
    **changes: Any,
) -> Path:
    """Write one finished task; `changes` replace entries of its result."""
    random = _random(dataset, split, method, variant, seed)
    unseen = [names[k] for k in held_out]
    skill = SKILL.get(method, 0.45) - 0.05 * len(variant) / 10 + _random(dataset, split).uniform(-0.15, 0.2)
    per_class = _per_class(random, names, set(held_out.tolist()), skill)
    u, s = (float(np.mean([a for _, is_unseen, _, a in per_class if is_unseen is kind])) for kind in (True, False))
    t1 = min(1.0, u + 0.08)
    curve = _curve(u, s)
    row = _row(method, dataset, split, seed, protocol, variant, len(names) - len(unseen), len(unseen), random)
    row |= {"T1": t1, "U": u, "S": s, "H": 2 * u * s / (u + s), "AUSUC": 0.7 * u * s, "H_without_gamma": 0.8 * u}
    row |= {"H_interval": [row["H"] - 0.02, row["H"] + 0.02], **changes}
    task = hashlib.sha256(repr((method, dataset, split, seed, protocol, variant)).encode()).hexdigest()[:16]
    row["task"] = task
    place = folder / "tasks" / task
    generative = method not in CLOSED_FORM
    write(place / "task.json", {
        "format": "unseen-run", "version": 1, "command": COMMAND, "source": f"/data/{dataset}", "unseen": unseen,
        **{key: row[key] for key in ("method", "split", "seed", "protocol", "settings_from", "hyperparameters", "recipe")},
    })  # fmt: skip
    write(place / "result.json", row)
    write(place / "figures.json", {
        "format": "unseen-figures",
        "version": 1,
        "curve": curve,
        "per_class": per_class,
        "confusion": _confusion(random, per_class, unseen, names),
        "projection": _projection(random, unseen) if generative and seed == 0 else None,
        "synthetic_counts": _counts(random, row) if generative and seed == 0 else None,
    })  # fmt: skip
    if generative and seed == 0 and not variant:
        oracle = {"method": f"oracle ({method})", "T1": 0.95, "U": 0.85, "S": 0.75, "H": 0.797, "H_without_gamma": 0.797}
        write(place / "oracle.json", {**row, **oracle, "AUSUC": None, "H_interval": None, "test_used_for_training": True})
    if generative:
        (place / "history.jsonl").write_text(_history(random, TERMS.get(method, ("loss",))))
    return place


def write_failure(folder: Path, method: str, dataset: str, split: str, seed: int, sentence: str) -> Path:
    """Write one task that failed."""
    task = hashlib.sha256(repr((method, dataset, split, seed, sentence)).encode()).hexdigest()[:16]
    place = folder / "tasks" / task
    write(place / "task.json", {
        "format": "unseen-run", "version": 1, "command": COMMAND, "source": f"/data/{dataset}", "unseen": [], "method": method,
        "split": split, "seed": seed, "protocol": "blind", "settings_from": "default",
    })  # fmt: skip
    about = {
        "kind": "run",
        "variant": "",
        "dataset": dataset,
        "split": split,
        "method": method,
        "protocol": "blind",
        "seed": seed,
    }
    write(place / "failure.json", {**about, "sentence": sentence, "traceback": "Traceback …"})
    return place


def write(path: Path, value: object) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")


def _random(*words: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big"))


def _hash(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


def _per_class(random: np.random.Generator, names: Sequence[str], held_out: set[int], skill: float) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for unseen in (True, False):
        for k, name in enumerate(names):
            if (k in held_out) is unseen:
                pictures = int(random.integers(5, 60))
                chance = np.clip(skill + (0.0 if unseen else 0.08) + random.normal(0, 0.18), 0.01, 0.99)
                rows.append([name, unseen, pictures, float(random.binomial(pictures, chance) / pictures)])
    return rows


def _curve(u: float, s: float, points: int = 201) -> dict[str, list[float]]:
    angle = np.linspace(0, np.pi / 2, points)
    return {
        "seen": np.minimum(1, 1.25 * s * np.cos(angle) ** 0.8).round(6).tolist(),
        "unseen": np.minimum(1, 1.25 * u * np.sin(angle) ** 0.8).round(6).tolist(),
    }


def _confusion(
    random: np.random.Generator, per_class: list[list[Any]], unseen: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    cells, nearest = [], []
    seen = [name for name in names if name not in set(unseen)]
    for k, (_, _, pictures, accuracy) in enumerate(per_class[: len(unseen)]):
        right = round(pictures * accuracy)
        wrong = random.multinomial(pictures - right, random.dirichlet(np.full(len(unseen) + 1, 0.05)))
        wrong[k] += right
        cells += [[k, int(answer), int(wrong[answer])] for answer in np.flatnonzero(wrong)]
        nearest.append(str(random.choice(seen)) if seen and wrong[-1] else "")
    return {"names": list(unseen), "cells": cells, "nearest_seen": nearest}


def _projection(random: np.random.Generator, unseen: Sequence[str]) -> dict[str, Any]:
    each = max(1, 300 // len(unseen))
    middles = random.uniform(-40, 40, (len(unseen), 2))
    shifted = middles + random.normal(0, 3, middles.shape)
    xy = np.concatenate([np.repeat(m, each, axis=0) for m in (middles, shifted)])
    xy = xy + random.normal(0, 2.2, xy.shape)
    labels = np.tile(np.repeat(np.arange(len(unseen)), each), 2)
    return {
        "xy": xy.round(4).tolist(),
        "labels": labels.tolist(),
        "synthetic": (np.arange(len(xy)) >= len(xy) // 2).tolist(),
        "names": list(unseen),
    }


def _counts(random: np.random.Generator, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for k, n in enumerate((10, 30, 100, 300, 1000, 3000)):
        share = 1 - 0.35 * np.exp(-k) + random.normal(0, 0.01)
        found.append({"per_class": n, **{key: float(min(1, row[key] * share)) for key in ("T1", "U", "H")}})
        found[-1]["S"] = float(row["S"] * (1.02 - 0.01 * k))
    return found


def _history(random: np.random.Generator, terms: Sequence[str], steps: int = 6000) -> str:
    lines = []
    for phase, last in (("choosing settings: l2 features, fold 1 of 3", steps // 4), ("training on all seen rows", steps)):
        for step in range(0, last + 1, 20):
            losses = {
                term: round(float((3 + k) * np.exp(-step / 900 / (k + 1)) - 0.4 * k + random.normal(0, 0.08)), 6)
                for k, term in enumerate(terms)
            }
            lines.append(json.dumps({"phase": phase, "step": step or 1, "losses": losses}))
    return "\n".join(lines) + "\n"


def _row(
    method: str,
    dataset: str,
    split: str,
    seed: int,
    protocol: str,
    variant: str,
    seen: int,
    unseen: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Everything of a result row but its figures."""
    generative = method not in CLOSED_FORM
    seconds = {"selection": 0.0, "training": float(random.uniform(40, 900)) if generative else 0.3, "scoring": 0.05}
    seconds |= {"classifier": float(random.uniform(3, 20))} if generative else {}
    recipe = {
        "scaling": "l2", "centred": True, "gamma": float(random.uniform(0, 2)), "steps": 6000, "synthetic": 300,
        "synthetic_ratio": 4.0, "classifier": "softmax", "classifier_epochs": 25, "classifier_decay": 0.001, "shrinkage": 0.3,
    }  # fmt: skip
    return {
        "method": method,
        "dataset": dataset,
        "split": split,
        "seed": seed,
        "protocol": protocol,
        "variant": variant,
        "gamma": recipe["gamma"],
        "leak_seen_to_unseen": 0.2,
        "leak_unseen_to_seen": 0.3,
        "test_pictures": 3022,
        "train_rows": 2399,
        "seen_classes": seen,
        "unseen_classes": unseen,
        "chance_T1": 1 / unseen,
        "hidden_width": 512 if generative else None,
        "steps": 6000 if generative else None,
        "seconds": sum(seconds.values()),
        "seconds_by_phase": seconds,
        "peak_memory": int(random.uniform(3e8, 2e9)),
        "threads": 1,
        "hyperparameters": {"lr": 1e-4, "hidden": 512, "beta": 0.01} if generative else {"ridge": 1.0},
        "recipe": recipe if generative else {key: recipe[key] for key in ("scaling", "centred", "gamma")},
        "settings_from": "folds" if protocol == "blind" else "published",
        "selection": {
            "chosen_on": "3 folds of the training rows, holding out 13, 13, 13 seen classes" if protocol == "blind" else "test",
            "chosen": {"scaling": "l2", "gamma": recipe["gamma"]},
            "objective": 0.51,
            "candidates": [{"scaling": "l2", "ridge": k / 10, "gamma": k / 7, "H": k / 80} for k in range(40)],
            "test_evaluations": 750 if protocol == "paper" else 0,
        },
        "test_used_for_selection": protocol == "paper",
        "test_evaluations": 750 if protocol == "paper" else 1,
        "diagnostic_evaluations": 6 if generative and seed == 0 else 0,
        "uses_unseen_embeddings": method == "dfca",
        "transductive": method.startswith("transductive"),
        "split_hash": _hash(dataset, split),
        "features_hash": _hash(dataset, "features"),
        "embeddings_hash": _hash(dataset, "embeddings"),
        "labels_hash": _hash(dataset, split, "labels"),
        "feature_extractor": "ResNet-101, ImageNet-1k weights, pooled",
        "embedding_source": "attributes of the data set",
        "versions": {"unseen": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
        "device": "cpu",
        "task_hash": _hash(dataset, split, method, variant, seed, protocol),
    }


def hostile_bench(folder: Path, names: Sequence[str]) -> Path:
    """A bench in which everything that has a name has a hostile one: classes, methods, data sets, splits, variants, terms."""
    long = "long" * 2500
    make_bench(
        folder,
        methods=(*names[:2], long),
        datasets={names[3]: (6, len(names)), names[4]: (3, 4)},
        splits=(names[1], names[8]),
        seeds=1,
        protocols=(names[5],),
        variants={names[0]: (names[6], long)},
        class_names=(*names, long),
    )
    for place in (folder / "tasks").iterdir():
        for file, key in (("task.json", "command"), ("task.json", "source"), ("result.json", "settings_from")):
            write(place / file, {**json.loads((place / file).read_text()), key: " ".join(names)})
        row = json.loads((place / "result.json").read_text())
        row |= {"hyperparameters": dict.fromkeys(names, names), "feature_extractor": names[7]}
        row["seconds_by_phase"] |= {names[2]: 1.0}
        write(place / "result.json", {**row, names[0]: names[1]})
        text = [{"phase": "training", "step": k, "losses": {names[0]: 1 / k, names[1]: k, long: k}} for k in (1, 2, 3)]
        (place / "history.jsonl").write_text("\n".join(map(json.dumps, text)))
    write_failure(folder, names[0], names[1], names[2], 0, " ".join(names))
    write(folder / "bench.json", {"format": "unseen-bench", "version": 1, "commands": list(names)})
    return folder
