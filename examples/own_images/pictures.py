"""A small folder of pictures to try `unseen features` on: emoji as different makers draw them, from the embedded data.

    python examples/own_images/pictures.py FOLDER

writes FOLDER/pictures/<class>/<number>.png, FOLDER/classes.csv (name, description, group), FOLDER/unseen.txt, the classes of
which no picture is to be trained on, and FOLDER/new.png, a picture of one of these. The makers and their licences stand in NOTICE.
"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

import unseen
from unseen.storage import csv_text

FEWEST = 6
"""Pictures of a class that the embedded sheet shows, at least: most classes have three there."""
UNSEEN = ("horse", "duck", "deciduous tree", "wine glass")
NEW = "deciduous tree"


def main(arguments: list[str]) -> int:
    """Write the pictures; the exit code."""
    from PIL import Image

    if len(arguments) != 1:
        print("usage: python examples/own_images/pictures.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    emoji = unseen.open_dataset("emoji")
    assert emoji.pictures is not None
    tile, sheet = emoji.pictures.tile, Image.open(io.BytesIO(emoji.pictures.sheet))
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row in emoji.pictures.rows:
        rows_of[int(emoji.labels[row])].append(int(row))
    chosen = [class_id for class_id, rows in rows_of.items() if len(rows) >= FEWEST]
    for class_id in chosen:
        for number, row in enumerate(rows_of[class_id]):
            column, line = (place * tile for place in emoji.pictures.place[row])
            name = emoji.classes.names[class_id]
            path = folder / "new.png" if name == NEW and number == 0 else folder / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.crop((column, line, column + tile, line + tile)).save(path)
    table = emoji.classes.take(np.array(chosen))
    rows = zip(table.names, table.descriptions, table.groups, strict=True)
    (folder / "classes.csv").write_text(csv_text(("name", "description", "group"), rows), encoding="utf-8")
    (folder / "unseen.txt").write_text("".join(f"{name}\n" for name in UNSEEN))
    print(f"{sum(len(rows_of[class_id]) for class_id in chosen)} pictures of {len(chosen)} classes in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
