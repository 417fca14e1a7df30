"""Animals with Attributes at its full size, with the features of its first release, as a data set with the proposed split.

    python examples/awa1/prepare.py FEATURES SPLITS OUT [DESCRIPTOR …]

FEATURES is a folder with the bag-of-visual-words counts of the first release (Lampert, Nickisch, Harmeling, "Learning to Detect
Unseen Object Classes by Between-Class Attribute Transfer", CVPR 2009), 30,475 pictures of 50 animals sorted by class:

    labels.npy                                  (30475,) 1…50
    lss.npy.bz2, surf.npy.bz2, rgsift.npy.bz2   (2, 30475, 2000) uint8: low and high bytes of the counts of 2,000 words each

SPLITS is the folder of AWA1 in the common layout; of its `att_splits.mat` the split, the class names and the 85 attributes are
used. OUT becomes a data set in the native format: `unseen train OUT`. Its features are √(count / all counts of the descriptor),
all descriptors side by side, or those that are named: what grows with the square of their length takes nine times as long for
three.

Hand-made features of 2009: every figure is far below those on a network's. What they are good for is to measure methods at a
benchmark's full size and split, on pictures of the real world.
"""

from __future__ import annotations

import bz2
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unseen import ClassTable, DataError, Dataset, Provenance, Split, UnseenError
from unseen.data.matfile import read_mat

DESCRIPTORS = ("lss", "surf", "rgsift")
PARTS = ("trainval_loc", "test_seen_loc", "test_unseen_loc")


def prepare(features: Path, splits: Path, descriptors: tuple[str, ...] = DESCRIPTORS) -> Dataset:
    """Turn the two folders into a data set; DataError if they are not what they should be."""
    if unknown := set(descriptors) - set(DESCRIPTORS):
        raise DataError(f"there is no descriptor '{min(unknown)}'; there are {', '.join(DESCRIPTORS)}")
    labels = _load(features / "labels.npy", compressed=False).astype(np.int64) - 1
    rows = np.concatenate([_descriptor(features / f"{name}.npy.bz2", len(labels)) for name in descriptors], axis=1)
    table = read_mat(splits / "att_splits.mat", ("att", *PARTS), ("allclasses_names",))
    train, test_seen, test_unseen = (np.asarray(table[part]).astype(np.int64).ravel() - 1 for part in PARTS)
    if max(train.max(), test_seen.max(), test_unseen.max()) >= len(labels):
        raise DataError(f"{splits} names pictures beyond the {len(labels)} of {features}; give the folder of AWA1")
    split = Split.from_rows("proposed", labels, train=train, test_seen=test_seen, test_unseen=test_unseen)
    return Dataset(
        name="awa1-bow" if descriptors == DESCRIPTORS else f"awa1-{'-'.join(descriptors)}",
        features=rows,
        labels=labels,
        classes=ClassTable(
            names=tuple(str(name).replace("+", " ") for name in table["allclasses_names"]),
            embeddings=np.asarray(table["att"], dtype=np.float32).T,
        ),
        splits={"proposed": split},
        provenance=Provenance(
            source="Animals with Attributes, first release (Lampert et al., CVPR 2009), split of Xian et al. (2017)",
            feature_extractor=f"bags of 2,000 visual words of {', '.join(descriptors)}; root of relative counts",
            embedding_source="85 attributes, continuous, as att_splits.mat has them",
            licence="none stated; research use with citation",
        ),
    )


def _descriptor(path: Path, rows: int) -> NDArray[np.float16]:
    low, high = _load(path, compressed=True)
    counts = low.astype(np.float32) + 256 * high.astype(np.float32)
    if len(counts) != rows:
        raise DataError(f"{path} has {len(counts)} rows and labels.npy {rows}; download both again")
    total: NDArray[np.float32] = counts.sum(axis=1, keepdims=True)
    features: NDArray[np.float16] = np.sqrt(counts / np.maximum(total, 1)).astype(np.float16)
    return features


def _load(path: Path, compressed: bool) -> NDArray[np.uint8]:
    try:
        content = bz2.decompress(path.read_bytes()) if compressed else path.read_bytes()
        loaded: NDArray[np.uint8] = np.load(io.BytesIO(content), allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the folder that this script's first lines describe") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error
    return loaded


def main(arguments: list[str]) -> int:
    """Prepare and write; the exit code."""
    if len(arguments) < 3:
        print("usage: python examples/awa1/prepare.py FEATURES SPLITS OUT [DESCRIPTOR ...]", file=sys.stderr)
        return 2
    try:
        dataset = prepare(Path(arguments[0]), Path(arguments[1]), tuple(arguments[3:]) or DESCRIPTORS)
        dataset.save(arguments[2])
    except UnseenError as error:
        print(error, file=sys.stderr)
        return 1
    split = dataset.split("proposed")
    print(
        f"{arguments[2]}: {len(split.train)} rows of {len(split.seen)} seen classes train, {len(split.test_seen)} test; "
        f"{len(split.test_unseen)} rows of {len(split.unseen)} unseen classes test"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
