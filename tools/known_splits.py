"""Write src/unseen/data/known_splits.json: fingerprints of public split files. Run: python tools/known_splits.py FOLDER

FOLDER holds one folder for each benchmark with its split file, `att_splits.mat` or `sent_splits.mat`. Stored are facts about
the index arrays: counts, SHA-256 of each, and for every row in which of the three parts it is. No features, no names.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from unseen.data.known_splits import FILE, PARTS, packed
from unseen.data.matfile import read_mat
from unseen.storage import fingerprint, write_json

LOCS = ("trainval_loc", "test_seen_loc", "test_unseen_loc")
MORE = ("train_loc", "val_loc")


def facts(path: Path) -> dict[str, Any]:
    """What is stored about one split file."""
    table = read_mat(path, LOCS, MORE)
    rows = {key: np.sort(array.reshape(-1).astype(np.int64)) - 1 for key, array in table.items()}
    codes = np.zeros(1 + max(int(index.max()) for index in rows.values()), np.uint8)
    for code, key in enumerate(LOCS, 1):
        codes[rows[key]] = code
    return {
        "set": path.parent.name,
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": len(codes),
        "counts": {part: len(rows[key]) for part, key in zip(PARTS, LOCS, strict=True)},
        "sha256": {key: fingerprint(index) for key, index in sorted(rows.items())},
        "parts": packed(codes),
    }


if __name__ == "__main__":
    found = [facts(path) for path in sorted(Path(sys.argv[1]).glob("*/*_splits.mat"))]
    write_json(FILE, {"source": "xlsa17 split files as passed on in public repositories", "splits": found})
    print(f"{len(found)} split files, {FILE.stat().st_size:,} bytes: {FILE}")
