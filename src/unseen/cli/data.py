"""Commands for one's own data: features, embed, and data info, convert, build, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unseen.cli.options import Address, AsJson, DatasetName, EngineName, command_line
from unseen.cli.saying import counting, counting_pictures, say
from unseen.errors import DataError, SettingsError, Stopped

SHOWN_PROBLEMS = 10
"""Of the pictures that were left out, so many are named on the screen."""


def features(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="PICTURES | merge PART...",
            help="A folder with one sub-folder per class, or a .csv or .parquet of path and label; or shards to merge.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FEATURES", help="Folder for the features; go on there.")],
    encoder: Annotated[
        str, typer.Option(help="efficientnet-lite0, timm:NAME, open_clip:NAME or open_clip:NAME:TAG.")
    ] = "efficientnet-lite0",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="A .safetensors file instead of the hub's.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Batches at a time; no result depends on it.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only this one of N pieces, counted from 0.")] = None,
    engine: EngineName = "local",
    workers: Annotated[int | None, typer.Option(help="Of a Ray cluster that is started here.")] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Turn pictures into features; the same command goes on after a stop. `merge` puts shards together."""
    from unseen.encoders.backbones import EncoderChoice
    from unseen.encoders.images import shown as shown_path
    from unseen.extraction import ClusterChoice, Shard, extract, merge

    if engine not in ("local", "ray"):
        raise SettingsError(f"there is no engine '{engine}'; there are local, ray")
    if engine == "local" and (workers is not None or address is not None):
        raise SettingsError("--workers and --address are for --engine ray; leave them out")
    if device not in ("cpu", "cuda"):
        raise SettingsError(f"there is no device '{device}'; there are cpu, cuda")
    source, *parts = sources
    if str(source) == "merge":
        unused = (
            ("--shard", shard),
            ("--weights", weights),
            ("--threads", threads),
            ("--workers", workers),
            ("--address", address),
        )
        if given := [option for option, value in unused if value is not None]:
            raise SettingsError(f"merge puts finished shards together and takes no {given[0]}; leave it out")
        done = merge(parts, out)
    elif parts:
        raise SettingsError(
            f"one folder or table of pictures is expected, and {len(sources)} are given; to merge, type merge first"
        )
    else:
        choice = EncoderChoice(encoder, weights and weights.absolute(), device)
        cluster = ClusterChoice(address, workers) if engine == "ray" else None
        piece = Shard.parse(shard) if shard is not None else Shard()
        try:
            with counting_pictures() as tell:
                done = extract(source, out, choice, shard=piece, threads=threads, cluster=cluster, on_progress=tell)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; what is done is kept; to go on, type: {command_line()}") from None
    if as_json:
        skipped = [{"path": shown_path(problem.path), "problem": problem.why} for problem in done.problems]
        print(json.dumps({"out": str(out), "rows": done.rows, "skipped": skipped}))
        return
    for problem in done.problems[:SHOWN_PROBLEMS]:
        say(f"note: {shown_path(problem.path)} {problem.why}", "yellow")
    if (count := len(done.problems)) > SHOWN_PROBLEMS:
        say(f"note: and {count - SHOWN_PROBLEMS} more, in {out / 'skipped.csv'}", "yellow")
    print(f"features: {out}{', which was there already' if done.before else ''}")
    print(f"{done.rows} pictures" + (f"; {count} entries left out or noted, see {out / 'skipped.csv'}" if count else ""))


def embed_classes(
    classes: Annotated[
        Path, typer.Argument(metavar="CLASSES", help="CSV or parquet: name, and description, group, attributes.")
    ],
    out: Annotated[Path, typer.Option(metavar="EMBEDDINGS", help="Folder for the class embeddings.")],
    encoder: Annotated[
        str, typer.Option(help="minilm, st:NAME_OR_FOLDER, open_clip:NAME:TAG, open_clip:FOLDER, vectors:FILE or attributes.")
    ] = "minilm",
    prompt: Annotated[
        list[str] | None, typer.Option(help='As "a photo of a {name}. {description}"; several are averaged.')
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Of open_clip:NAME: a safetensors file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn names and descriptions, or attributes, into class embeddings."""
    from unseen.data.class_file import check_place, save_classes
    from unseen.encoders import embed

    check_place(out)  # before minutes of encoding
    with counting("texts") as watch:
        made = embed(classes, encoder, prompt or (), weights, watch)
    save_classes(made, out)
    count, length = made.table.embeddings.shape
    if as_json:
        about = {"embeddings": str(out), "classes": count, "embedding_length": length, "source": made.source}
        print(json.dumps({**about, "encoder": made.encoder}, ensure_ascii=False))
        return
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)  # columns are a stranger's
    console.print(f"{count} classes with embeddings of length {length}")
    console.print(f"made by: {made.source}")
    console.print(f"embeddings: {out}")


def info(dataset: DatasetName, as_json: AsJson = False) -> None:
    """Say what a data set holds, after checking it."""
    from unseen.data import open_dataset
    from unseen.data.known_splits import recognise

    data = open_dataset(dataset)
    about: dict[str, Any] = {
        "name": data.name,
        "rows": len(data.labels),
        "feature_length": data.features.shape[1],
        "classes": len(data.classes),
        "embedding_length": data.classes.embeddings.shape[1],
        "provenance": vars(data.provenance),
        "features_hash": data.features_fingerprint,
        "embeddings_hash": data.embeddings_fingerprint,
        "splits": [
            {
                "name": s.name,
                "seen": len(s.seen),
                "unseen": len(s.unseen),
                "train": len(s.train),
                "test_seen": len(s.test_seen),
                "test_unseen": len(s.test_unseen),
                "hash": s.fingerprint,
                "known": recognise(data, s.name),
            }
            for s in data.splits.values()
        ],
    }
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return
    console = Console(markup=False, emoji=False, highlight=False)  # names are a stranger's
    console.print(
        f"{about['name']}: {about['rows']} rows of length {about['feature_length']}, {about['classes']} classes with "
        f"embeddings of length {about['embedding_length']}"
    )
    for key, value in about["provenance"].items():
        console.print(f"{key.replace('_', ' ')}: {value}")
    table = Table("split", "seen", "unseen", "train", "test_seen", "test_unseen", "fingerprint", box=None)
    for s in about["splits"]:
        numbers = [str(s[key]) for key in ("seen", "unseen", "train", "test_seen", "test_unseen")]
        table.add_row(Text(s["name"]), *numbers, s["hash"][:12])
    console.print(table)
    for known in dict.fromkeys(s["known"] for s in about["splits"]):
        named = [s["name"] for s in about["splits"] if s["known"] == known]
        console.print(f"{'split' if len(named) == 1 else 'splits'} {', '.join(named[:5])}{', …' * (len(named) > 5)}: {known}")


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Anything that holds a data set: see the page on formats.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Ends with .npz, .safetensors, .csv or .parquet, or a folder.")],
    to: Annotated[str | None, typer.Option(help="native, xlsa17, npz, safetensors, csv or parquet.")] = None,
    split: Annotated[str | None, typer.Option(help="Write this one alone; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a data set in whatever format it is, and write it in another; what the other cannot hold is named."""
    from unseen.data.opening import find_dataset
    from unseen.data.writing import write_dataset

    opened = find_dataset(source)
    data = opened.dataset
    if not as_json:
        splits = f"{len(data.splits)} split{'s' * (len(data.splits) != 1)}"
        print(f"found {opened.found}: {len(data.labels):,} rows, {len(data.classes):,} classes, {splits}")
    written = write_dataset(data, target, to, split)
    if as_json:
        told = {"found": opened.found, "rows": len(data.labels), "classes": len(data.classes)}
        print(json.dumps({**told, "splits": list(data.splits), "written": written}, ensure_ascii=False))
    else:
        print(f"wrote {written}")


def build(
    features: Annotated[Path, typer.Option(help="What `unseen features` wrote, or a table of features with a column label.")],
    classes: Annotated[Path, typer.Option(help="What `unseen embed` wrote, or a table of names and attributes.")],
    out: Annotated[Path, typer.Option(help="The data set, a folder.")],
    split: Annotated[
        str, typer.Option(help="random, groups (whole ones), list (name them), or rollout (they arrive later, in stages).")
    ] = "random",
    unseen_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--unseen", metavar="SHARE|NUMBER|NAMES", help="20% if not given; for list and rollout names, or a file of them."
        ),
    ] = None,
    seed: int = 0,
    name: Annotated[str | None, typer.Option(help="Of the data set; the folder's if not given.")] = None,
    test_share: Annotated[float, typer.Option(help="Of the rows of each seen class, held out as test_seen.")] = 0.2,
    draws: Annotated[int, typer.Option(help="Splits drawn, for random and groups.")] = 1,
    stages: Annotated[int, typer.Option(help="In which classes arrive, for rollout.")] = 3,
    drop_unknown: Annotated[bool, typer.Option("--drop-unknown", help="Leave rows out whose label is no class.")] = False,
    source: Annotated[str, typer.Option(help="Where the pictures come from, in a sentence.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Of the pictures.")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Join features with class embeddings by name, cut splits, and write a data set."""
    from unseen.data.build import UnknownLabels, build_dataset, refuse_other_folders
    from unseen.data.class_file import load_classes
    from unseen.data.collection import load_collection
    from unseen.data.native import save_new

    refuse_other_folders(features, classes)
    try:
        built = build_dataset(
            load_collection(features),
            load_classes(classes),
            name=out.resolve().name if name is None else name,
            split=split,
            unseen=unseen_classes or ["20%"] if split != "list" else unseen_classes or [],
            seed=seed,
            test_share=test_share,
            draws=draws,
            stages=stages,
            drop_unknown=drop_unknown,
            source=source,
            licence=licence,
        )
    except UnknownLabels as error:
        raise DataError(f"{error} with --drop-unknown") from error
    save_new(built.dataset, out)
    for note in built.notes:
        say(f"note: {note}", "yellow")
    if as_json:
        print(json.dumps(built.dataset.describe().facts | {"notes": built.notes}, ensure_ascii=False))
        return
    _print_text(str(built.dataset.describe()))
    print(f"data set: {out}")


def check(
    dataset: DatasetName,
    split: Annotated[str | None, typer.Option(help="The data set's first split if not given.")] = None,
    threshold: Annotated[float, typer.Option(help="Cosine from which two rows are near duplicates.")] = 0.95,
    permutations: Annotated[int, typer.Option(help="Shuffles of the embeddings, 19 or more; 0 leaves that test out.")] = 99,
    backbone_classes: Annotated[
        Path | None, typer.Option(help="A file of the labels that the features' network was trained with, one a line.")
    ] = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Say what to mend before training: duplicates, thin classes, neighbours, and whether the embeddings say anything."""
    from unseen.data import open_dataset
    from unseen.data.check import check_dataset

    report = check_dataset(
        open_dataset(dataset),
        split,
        threshold=threshold,
        permutations=permutations,
        backbone_classes=backbone_classes,
        seed=seed,
    )
    if as_json:
        print(json.dumps(report.facts, ensure_ascii=False))
    else:
        _print_text(str(report))


def _print_text(text: str) -> None:
    """Lines as long as they are; names are a stranger's."""
    Console(markup=False, emoji=False, highlight=False, soft_wrap=True).print(text)
