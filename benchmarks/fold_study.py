"""What was tried, measured on validation folds alone, and docs/tried.md written from it.

    python benchmarks/fold_study.py [--data DIR] [--only WORD]

One change at a time from TF-VAEGAN's defaults on Grocery; the weight of GSMFlow's prototype loss there and on the emoji; SDDN's
generator there and on AwA1. Folds are cut from the training rows by the same function as in `blind` (seed 7): the first of
three of each of Grocery's five random splits, and all three of the emoji's demo and of AwA1; so no test row is looked at. H is
at the best γ of each fold, which flatters all variants alike. Resumable: a finished variant stands in
benchmarks/results/fold_study.jsonl and is not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unseen.data import open_dataset
from unseen.evaluation.folds import cut_folds
from unseen.evaluation.metrics import choose_gamma, per_class_accuracy
from unseen.evaluation.predictor import Predictor, RepresentedRows, closed_form_predictor, generative_predictor
from unseen.evaluation.protocol import versions
from unseen.final_classifier import classifier_rows
from unseen.methods import gsmflow, sddn, tfvaegan
from unseen.methods.base import ClassStreams, GenerativeMethod
from unseen.methods.class_gaussian import ClassGaussian
from unseen.methods.prototype import class_prototypes
from unseen.methods.tfvaegan import default, without_decoder
from unseen.recipe import Recipe
from unseen.scaling import ScaledView, Scaler
from unseen.training import train

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "fold_study.jsonl"
DATA, AWA1_DATA = ROOT / "runs" / "grocery", ROOT / "runs" / "awa1-rgsift"
GROCERY = tuple((str(DATA), f"random{k}", 0) for k in range(5))
EMOJI = tuple(("emoji", "demo", number) for number in range(3))
FULL_EMOJI = (("emoji", "full0", 0),)
AWA1 = tuple((str(AWA1_DATA), "proposed", number) for number in range(3))
"""Data set, split and number of the fold."""
SEED = 7

METHODS: dict[type, Any] = {
    tfvaegan.Hyperparameters: tfvaegan.TFVAEGAN,
    gsmflow.Hyperparameters: gsmflow.GSMFlow,
    sddn.Hyperparameters: sddn.SDDN,
}

FULL, RECIPE = default(65, 1280, 384)
VAE = replace(without_decoder(FULL), gamma_G=0.0)
VARIANTS: dict[str, tuple[Any, Recipe]] = {
    "class-Gaussian (whitened, λ 0.3, shrinkage 1)": (ClassGaussian(0.3, 1.0), replace(RECIPE, shrinkage=1.0)),
    "TF-VAEGAN, defaults": (FULL, RECIPE),
    "conditional VAE alone": (VAE, RECIPE),
    "f-VAEGAN-D2": (without_decoder(FULL), RECIPE),
    "without feedback": (replace(FULL, feedback_loops=1), RECIPE),
    "without transform": (replace(FULL, transform=False), RECIPE),
    "critic sees means, not samples (sample_noise off)": (replace(FULL, sample_noise=False), RECIPE),
    "latent as long as c (384), as published": (replace(FULL, latent=0), RECIPE),
    "embedding_noise 0, as published": (replace(FULL, embedding_noise=0.0), RECIPE),
    "embedding_noise 0.5": (replace(FULL, embedding_noise=0.5), RECIPE),
    "decoder_lr 1e-4, as published": (replace(FULL, decoder_lr=1e-4), RECIPE),
}

FLOW, FLOW_RECIPE = gsmflow.default(65, 1280, 384)
FLOW_VARIANTS: dict[str, tuple[Any, Recipe]] = {
    "GSMFlow, defaults (λ_p 1)": (FLOW, FLOW_RECIPE),
    **{f"GSMFlow, λ_p {weight:g}": (replace(FLOW, lambda_p=weight), FLOW_RECIPE) for weight in (0.0, 10.0, 100.0)},
}


def held_to_600(name: str, hyperparameters: Any, recipe: Recipe) -> dict[str, tuple[Any, Recipe]]:
    """As many steps as the defaults take, and as few as would make the emoji's full splits quick."""
    return {
        f"{name}, defaults ({recipe.steps} steps), all emoji": (hyperparameters, recipe),
        f"{name}, 600 steps, all emoji": (hyperparameters, replace(recipe, steps=600)),
    }


def sddn_variants(classes: int, d: int, a: int) -> dict[str, tuple[Any, Recipe]]:
    whole, recipe = sddn.default(classes, d, a)
    alone = replace(whole, **sddn.ABLATIONS["B0 generator alone"])
    return {
        "SDDN, defaults": (whole, recipe),
        "SDDN, generator=vaegan": (replace(whole, generator="vaegan"), recipe),
        "SDDN's conditional VAE alone": (alone, recipe),
        "SDDN's VAE-GAN alone": (replace(alone, generator="vaegan"), recipe),
    }


def fused_variants(classes: int, d: int, a: int) -> dict[str, tuple[Any, Recipe]]:
    """What SDDN's classifier sees, other than the semantic half and what is predicted from it."""
    whole, recipe = sddn.default(classes, d, a)
    return {f"SDDN, fusion={fusion}": (replace(whole, fusion=fusion), recipe) for fusion in ("F0", "F4", "F5")}


def cvae_variants(classes: int, d: int, a: int) -> dict[str, tuple[Any, Recipe]]:
    """What might have mended SDDN's conditional VAE."""
    whole, recipe = sddn.default(classes, d, a)
    alone = replace(whole, **sddn.ABLATIONS["B0 generator alone"])
    tried = {
        "kappa0 1": (replace(alone, kappa0=1.0), recipe),
        "three times the steps": (alone, replace(recipe, steps=3 * recipe.steps)),
        "embedding_noise 0": (replace(alone, embedding_noise=0.0), recipe),
        "no dropout": (replace(alone, encoder_dropout=0.0, generator_dropout=0.0), recipe),
        "min–max features": (alone, replace(recipe, scaling="minmax")),
    }
    return {f"SDDN's conditional VAE alone, {name}": variant for name, variant in tried.items()}


def named_after(dataset: str, variants: dict[str, tuple[Any, Recipe]]) -> dict[str, tuple[Any, Recipe]]:
    return {f"{name}, {dataset}": variant for name, variant in variants.items()}


TABLES = {
    "table": (GROCERY, VARIANTS),
    "gsmflow": (GROCERY, FLOW_VARIANTS),
    "gsmflow-emoji": (EMOJI, named_after("emoji", FLOW_VARIANTS)),
    "steps-tfvaegan": (FULL_EMOJI, held_to_600("TF-VAEGAN", *default(491, 1280, 384))),
    "steps-gsmflow": (FULL_EMOJI, held_to_600("GSMFlow", *gsmflow.default(491, 1280, 384))),
    "sddn": (GROCERY, sddn_variants(65, 1280, 384) | fused_variants(65, 1280, 384)),
    "sddn-emoji": (EMOJI, named_after("emoji", sddn_variants(176, 1280, 384))),
    "sddn-awa1": (AWA1, named_after("AwA1", sddn_variants(40, 2000, 85) | cvae_variants(40, 2000, 85))),
}
"""Mark in the page → folds, and what was tried on them. The defaults of GSMFlow are the same for both data sets."""

SHARES = {f"share of class means, {name}": folds for name, folds in (("Grocery", GROCERY), ("emoji", EMOJI), ("AwA1", AWA1))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shared = Path(os.environ.get("UNSEEN_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=shared, help="holds grocery/, awa1-bow/ and xlsa17-splits/")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="variants that have this in their name")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report_only:
        from comparison import prepare

        prepare(arguments.data)
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        done = {row["variant"] for row in read_rows()}
        todo = {name: measure for _, variants in TABLES.values() for name in variants} | dict.fromkeys(SHARES, measure_share)
        wanted = [name for name in todo if arguments.only in name and name not in done]
        with ProcessPoolExecutor(arguments.workers) as pool:
            for finished in as_completed([pool.submit(todo[name], name) for name in wanted]):
                row = finished.result()
                with ROWS.open("a") as file:
                    file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
                print(f"{row['variant']}: done", flush=True)
    write_page()


def measure(name: str) -> dict[str, Any]:
    """A variant on every fold: H at the fold's best γ, T1, AUSUC, and how far off the means of unseen classes are."""
    torch.set_num_threads(1)
    [(folds, (hyperparameters, recipe))] = [(where, tried[name]) for where, tried in TABLES.values() if name in tried]
    figures: dict[str, list[float]] = {key: [] for key in ("H", "T1", "AUSUC", "mean_error", "seconds")}
    for source, split, number in folds:
        fold = cut_folds(open_dataset(source).training_view(split), 3, SEED)[number]
        begun = time.monotonic()
        scaler = Scaler.fit(fold.view, recipe.scaling, centred=True)
        view = scaler.view(fold.view, torch.device("cpu"))
        predictor, means = fit(hyperparameters, recipe, scaler, view)
        rows = fold.held_out
        curve = predictor.curve(RepresentedRows.of(rows, scaler, predictor.represent, view.device))
        figures["H"].append(choose_gamma([curve], [predictor.spread])[1])
        figures["T1"].append(per_class_accuracy(rows.unseen_labels, predictor.predict_unseen(rows.unseen_features)))
        figures["AUSUC"].append(curve.area)
        real = scaler.features(rows.unseen_features)
        true = np.stack([real[rows.unseen_labels == k].mean(axis=0) for k in view.unseen.numpy()])
        scale = np.square(true - true.mean(axis=0)).sum(axis=1).mean()
        figures["mean_error"].append(float(np.square(means - true).sum(axis=1).mean() / scale))
        figures["seconds"].append(time.monotonic() - begun)
    over_folds = {key: float(np.mean(values)) for key, values in figures.items()}
    return {"variant": name, **over_folds, "H_by_split": figures["H"], "versions": versions()}


def measure_share(name: str) -> dict[str, Any]:
    """How much of the mean squared length of scaled training rows is that of their classes' means, in the folds of a data set.

    A mean of n rows is longer than the true one by the variance within the class over n, which is taken off. Scaled as by
    SDDN's defaults.
    """
    torch.set_num_threads(1)
    shares = []
    for source, split, number in SHARES[name]:
        fold = cut_folds(open_dataset(source).training_view(split), 3, SEED)[number]
        view = Scaler.fit(fold.view, "whitened", centred=True).view(fold.view, torch.device("cpu"))
        lengths = view.features.square().sum(dim=1)
        of_means = 0.0
        for k in view.seen:
            own = view.features[view.labels == k]
            within = own.var(dim=0).sum()
            of_means += float(len(own) * own.mean(dim=0).square().sum() - within)
        shares.append(of_means / float(lengths.sum()))
    return {"variant": name, "share": float(np.mean(shares)), "versions": versions()}


def fit(hyperparameters: Any, recipe: Recipe, scaler: Scaler, view: ScaledView) -> tuple[Predictor, np.ndarray]:
    """The predictor, and the means that it takes unseen classes to have."""
    if isinstance(hyperparameters, ClassGaussian):
        means = class_prototypes(view, hyperparameters.ridge)[view.unseen]
        return closed_form_predictor(scaler, view, hyperparameters.fit(view)), means.numpy()
    method: GenerativeMethod = METHODS[type(hyperparameters)](view, hyperparameters, SEED)
    train(method, view, recipe.steps, SEED)
    synthetic = recipe.rows_per_class(view.mean_seen_count)
    rows = classifier_rows(method, view, synthetic, SEED)
    predictor = generative_predictor(scaler, view, method.represent, rows, recipe, SEED)
    x = method.sample(view.unseen.repeat_interleave(synthetic), ClassStreams(SEED, view.names, view.device))
    return predictor, x.reshape(len(view.unseen), synthetic, -1).mean(dim=1).numpy()


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def write_page(target: Path = ROOT / "docs" / "tried.md") -> None:
    """docs/tried.md: its words, and the tables from the rows."""
    page = (ROOT / "docs" / "tried.md").read_text()
    for mark, (_, variants) in TABLES.items():
        before, rest = page.split(f"<!-- {mark} -->", 1)
        after = rest.split(f"<!-- /{mark} -->", 1)[1]
        page = f"{before}<!-- {mark} -->\n{table(list(variants))}\n<!-- /{mark} -->{after}"
    rows = {row["variant"]: row for row in read_rows()}
    for name in SHARES:
        before, rest = page.split(f"<!-- {name} -->", 1)
        after = rest.split("<!-- /share -->", 1)[1]
        share = f"{100 * rows[name]['share']:.1f} percent" if name in rows else "a share not measured yet"
        page = f"{before}<!-- {name} -->{share}<!-- /share -->{after}"
    target.write_text(page)


def table(variants: list[str]) -> str:
    """The variants that are measured, against the one whose name says that it is the defaults."""
    rows = {row["variant"]: row for row in read_rows()}
    full = next(rows[name] for name in variants if ", defaults" in name)
    lines = [
        "| variant | H | against defaults | better on | T1 | AUSUC | error of unseen means | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in variants:
        if name not in rows:
            continue
        row = rows[name]
        differences = [100 * (a - b) for a, b in zip(row["H_by_split"], full["H_by_split"], strict=True)]
        against = "" if row is full else f"{np.mean(differences):+.1f}"
        better = "" if row is full else f"{sum(d > 0 for d in differences)} of {len(differences)}"
        lines.append(
            f"| {name} | {100 * row['H']:.1f} | {against} | {better} | {100 * row['T1']:.1f} | {100 * row['AUSUC']:.1f} "
            f"| {row['mean_error']:.2f} | {row['seconds']:.0f} |"
        )
    measured_with = ", ".join(f"{name} {number}" for name, number in full["versions"].items())
    return "\n".join([*lines, "", f"{measured_with}, one thread."])


if __name__ == "__main__":
    main()
