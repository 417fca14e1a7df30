"""Commands for a classifier in use: fit, predict, add, forget."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unseen.cli.options import AsJson, DatasetName, Settings, pairs
from unseen.cli.saying import say, watching
from unseen.errors import DataError, MissingDependency, SettingsError

if TYPE_CHECKING:
    from unseen.classifier import ZeroShotClassifier
    from unseen.data import ClassTable

ImageEncoderName = Annotated[
    str | None, typer.Option(metavar="NAME", help="What made the features of pictures, if not efficientnet-lite0.")
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `unseen fit` or `save` wrote.")]

COMPARED = 8
"""Classes of a data set whose embeddings are made again to see how they were made."""
SAME = 1e-5
"""Embeddings that differ by less are made alike; machines differ in the last bits."""


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A folder of `unseen fit` or `unseen train`, or a file of `unseen export`.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Features (.npy, .npz, .safetensors, .csv, .jsonl, .parquet), a picture, a folder, or - for standard input.",
        ),
    ],
    form: Annotated[
        str | None, typer.Option("--format", help="table, jsonl or csv; if not given, a table on a terminal, else jsonl.")
    ] = None,
    top: Annotated[int, typer.Option(help="Most probable classes that are listed of each; 0 for none.")] = 3,
    risk: Annotated[float | None, typer.Option(help="Share of wrong answers to keep to by not answering.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each resembles, too.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Written whole, or not at all; its ending says how.")] = None,
    image_encoder: ImageEncoderName = None,
    dataset: Annotated[str | None, typer.Option("--data", metavar="DATASET", help="Of a run, if it has moved since.")] = None,
) -> None:
    """Say what rows of features or pictures show, one answer a line, as they come."""
    from unseen.answering import answered, open_model
    from unseen.cli.answers import FORMATS, one_by_one
    from unseen.storage import write_atomically

    if form not in (None, *FORMATS):
        raise SettingsError(f"there is no format '{form}'; there are {', '.join(FORMATS)}")
    if top < 0:
        raise SettingsError(f"--top {top} lists nothing; give 0 or more")
    form = form or _form(out)
    opened = open_model(model, risk, dataset, image_encoder)
    top = min(top, len(opened.names))
    answers, unread = 0, 0

    def complain(sentence: str) -> None:
        nonlocal unread
        unread += 1
        say(sentence, "yellow")

    def counted() -> Iterator[list[Any]]:
        nonlocal answers
        for part in one_by_one(answered(opened, source, complain, explain), opened.names, top):
            if not answers and not opened.calibrated:
                why = "nothing was chosen on folds, or no class is without an example"
                say(f"note: in {model} {why}, so how sure it is is not calibrated", "yellow")
            answers += len(part)
            yield part
            if out is None:
                sys.stdout.flush()  # who reads a stream shall not wait for what comes later

    lines = FORMATS[form](counted(), top)
    if out is None:
        sys.stdout.writelines(lines)
    else:
        write_atomically(out, lambda temporary: _write(temporary, lines))
        print(f"answers: {out}")
    if unread:
        raise DataError(f"{unread} of {unread + answers} could not be answered, see above")
    if not answers:
        say("note: there is no row in it, so nothing is answered", "yellow")


def _form(out: Path | None) -> str:
    """How answers are written where nobody says it."""
    if out is None:
        return "table" if sys.stdout.isatty() else "jsonl"
    forms = {".csv": "csv", ".jsonl": "jsonl", ".txt": "table", "": "jsonl"}
    if out.suffix.lower() not in forms:
        raise SettingsError(f"--out {str(out)[:200]!r} does not say how to write; give .csv, .jsonl or .txt, or --format")
    return forms[out.suffix.lower()]


def _write(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


def fit(
    dataset: DatasetName,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder for the classifier; an older one is replaced.")],
    method: Annotated[str, typer.Option(help="See `unseen methods`.")] = "tfvaegan",
    protocol: Annotated[str, typer.Option(help="auto, blind or fixed.")] = "auto",
    settings: Settings = None,
    preset: Annotated[str | None, typer.Option(help="A published preset by name (cub), or a preset file.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    split: Annotated[
        str | None, typer.Option(help="Learn from this split's training rows alone; from all if not given.")
    ] = None,
    image_encoder: ImageEncoderName = None,
    threads: Annotated[int | None, typer.Option(help="Results depend on it in the last bits.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier to be used: on all rows of a data set, with all its classes, those without rows included."""
    import numpy as np

    from unseen.classifier import ZeroShotClassifier
    from unseen.data import open_dataset
    from unseen.data.collection import check_replaceable
    from unseen.encoders.images import ImageEncoder
    from unseen.saved import ARRAYS, FORMAT, MANIFEST
    from unseen.storage import alone

    data = open_dataset(dataset)
    check_replaceable(model, MANIFEST, FORMAT, (MANIFEST, ARRAYS))  # before minutes of training
    rows = np.arange(len(data.labels)) if split is None else data.split(split).train
    table = data.classes if split is None else data.class_table(split)
    names = np.array(data.classes.names)
    words = _words(table, data.provenance.embedding_source)
    if image_encoder is None and data.provenance.feature_extractor.startswith(ImageEncoder.description):
        image_encoder = ImageEncoder.name
    begun = time.monotonic()
    classifier = ZeroShotClassifier(
        method,
        protocol=protocol,
        settings=dict(pairs(settings or [])) or None,
        preset=preset,
        image_encoder=image_encoder,
        random_state=seed,
        threads=threads,
    )
    with alone(model / MANIFEST):  # if there is a model, also while it trains: what others change meanwhile would be lost
        say(f"training {method} on {len(rows)} rows of {len(np.unique(data.labels[rows]))} classes", "")
        with watching() as watch:
            classifier.fit(data.features[rows], names[data.labels[rows]], words or (list(table.names), table.embeddings), watch)
        classifier.save(model)
    takes = [f"rows of {classifier.n_features_in_} features", *(["pictures"] if image_encoder else [])]
    told = {
        "model": str(model),
        "method": method,
        "rows": len(rows),
        "classes": len(classifier.classes_),
        "unseen": len(classifier.unseen_classes_),
        "takes": takes,
        "learns_from": "descriptions" if words else "embeddings",
        "seconds": round(time.monotonic() - begun, 1),
    }
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"learned {told['classes']} classes, {told['unseen']} of them without an example, from {len(rows)} rows")
    print(f"takes {' or '.join(takes)}; further classes are added by their {told['learns_from']}")
    print(f"model: {model}")


def _words(table: ClassTable, source: str) -> dict[str, list[str]] | None:
    """What is said of each class, where its embedding was made from that by the packaged encoder; else None.

    All embeddings are then made anew, which lets classes be added that are described alike; if that gives some others than the
    data set has, a note says so.
    """
    import numpy as np

    from unseen.encoders import TextEncoder, embed

    if not table.descriptions or not source.startswith(TextEncoder.description):
        return None
    words = {name: said.splitlines() or [""] for name, said in zip(table.names, table.descriptions, strict=True)}
    some = sorted({round(k) for k in np.linspace(0, len(table) - 1, COMPARED)})
    try:
        made = embed({table.names[k]: words[table.names[k]] for k in some}).table.embeddings
    except MissingDependency as missing:
        say(f"note: classes cannot be added in words: {missing}", "yellow")
        return None
    if not np.allclose(made, table.embeddings[some], rtol=0, atol=SAME):
        say(
            'note: the class embeddings of the data set were made of other sentences than "{name}. {description}", so they are '
            "made anew of these; classes that are added will be, too",
            "yellow",
        )
    return words


# ------------------------------------------------------------------------------------------------------ later classes


def add(
    model: ModelFolder,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the new class.")] = None,
    description: Annotated[str | None, typer.Argument(metavar="[DESCRIPTION]", help="What it looks like, in words.")] = None,
    embedding: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Its embedding, where the others were given so.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Several classes: CSV or parquet, or what `unseen embed` wrote.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of descriptions, if it is not minilm; as `unseen embed` takes it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a classifier know further classes, of which there is no example; nothing is trained again."""
    if (classes is None) == (name is None) or (classes is not None and embedding is not None):
        raise SettingsError("give a class by its name and what is known of it, or several by --classes TABLE")
    if classes is None and (description is None) == (embedding is None):
        raise SettingsError(f"give {name!r} a description, or an --embedding")
    _change(model, lambda known: _added(known, name or "", description, embedding, classes), "added", as_json, encoder)


def forget(
    model: ModelFolder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Classes that are not to be answered any more.")],
    as_json: AsJson = False,
) -> None:
    """Let a classifier answer these classes no more."""

    def forgotten(known: ZeroShotClassifier) -> list[str]:
        known.remove_classes([_label(known, name) for name in names])
        return names

    _change(model, forgotten, "forgot", as_json)


def _added(
    known: ZeroShotClassifier, name: str, description: str | None, embedding: Path | None, classes: Path | None
) -> list[str]:
    """Add what is said here; the names of what was added."""
    from unseen.data.class_file import load_classes
    from unseen.data.class_list import read_class_list
    from unseen.data.tables import read_npy

    if embedding is not None and not embedding.exists():
        raise DataError(f"{embedding} does not exist; check the name")
    if classes is None:
        said: Any = description if embedding is None else read_npy(embedding).reshape(-1)
        given: Any = {_label(known, name): said}
        names = [name]
    elif classes.is_dir() or known.told_by_ == "embedding":
        table = load_classes(classes).table
        names = list(table.names)
        given = ([_label(known, each) for each in names], table.embeddings)
    else:
        listed = read_class_list(classes).classes
        names = [entry.name for entry in listed]
        given = {_label(known, entry.name): list(entry.sentences) or [""] for entry in listed}
    known.add_classes(given)
    return names


def _label(known: ZeroShotClassifier, name: str) -> Any:
    """A name as typed, as a label of the kind that this classifier has."""
    from unseen.given import label_like

    return label_like(known.classes_, name)


def _change(
    model: Path, change: Callable[[ZeroShotClassifier], list[str]], done: str, as_json: bool, encoder: str | None = None
) -> None:
    """Load, change and save a classifier, and say what was done; nothing is changed where something is wrong."""
    from unseen.classifier import ZeroShotClassifier
    from unseen.saved import MANIFEST
    from unseen.storage import alone

    begun = time.monotonic()
    with alone(model / MANIFEST):
        known = ZeroShotClassifier.load(model, encoder=encoder)
        names = change(known)
        known.save(model)
    seconds = time.monotonic() - begun
    count, unseen = len(known.classes_), len(known.unseen_classes_)
    if as_json:
        told = {"model": str(model), done: names, "classes": count, "unseen": unseen, "seconds": round(seconds, 2)}
        print(json.dumps(told, ensure_ascii=False))
        return
    shown = ", ".join(repr(name[:60]) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    print(f"{done} {shown} in {seconds:.1f} s; {count} classes now, {unseen} of them without an example")
