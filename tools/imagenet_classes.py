"""Write src/unseen/data/imagenet_classes.txt: the names of ImageNet-1k's classes. Run where timm is installed:

    python tools/imagenet_classes.py

One class a line, synonyms parted by commas, as the Python package timm (1.0.31, Apache-2.0) has them from WordNet 3.0.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from unseen.data.backbone import IMAGENET
from unseen.storage import write_text


def main() -> None:
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise SystemExit("timm is not installed here; run: make backbones, and use .venv-backbones/bin/python")
    info = Path(package.origin).parent / "data" / "_info"
    lemmas = dict(
        line.split("\t", 1) for line in (info / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines() if line
    )
    write_text(IMAGENET, "".join(f"{lemmas[synset]}\n" for synset in (info / "imagenet_synsets.txt").read_text().split()))


if __name__ == "__main__":
    main()
