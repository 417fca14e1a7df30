"""What a trained run takes one picture for.

    python examples/own_images/predict.py RUN PICTURE

prints the class, and what it would be if only seen or only unseen classes were possible.
"""

from __future__ import annotations

import sys
from pathlib import Path

import unseen
from unseen.encoders import ImageEncoder
from unseen.runs import evaluate, read_description


def main(arguments: list[str]) -> int:
    """Predict; the exit code."""
    if len(arguments) != 2:
        print("usage: python examples/own_images/predict.py RUN PICTURE", file=sys.stderr)
        return 2
    run, picture = map(Path, arguments)
    try:
        data = unseen.open_dataset(read_description(run)["source"])
        if not data.provenance.feature_extractor.startswith(ImageEncoder.description):
            print(f"the features of {data.name} are of another encoder than {ImageEncoder.name}", file=sys.stderr)
            return 1
        outcome = evaluate(run, data)
        decisions = outcome.predictor.decide(ImageEncoder().encode([picture]))
    except unseen.UnseenError as error:
        print(error, file=sys.stderr)
        return 1
    names = data.class_table(outcome.task.split).names
    print(f"{picture}: {names[decisions.predict(outcome.gamma)[0]]}")
    print(f"of the seen classes {names[decisions.best_seen[0]]}, of the unseen ones {names[decisions.best_unseen[0]]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
