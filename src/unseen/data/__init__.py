"""Data sets: what they hold, how they are read, written and checked."""

from unseen.data.dataset import ClassTable, Dataset, Pictures, Provenance, Split, TestRows, TrainingView, TransductiveView
from unseen.data.opening import BUILT_IN, open_dataset

__all__ = [
    "BUILT_IN",
    "ClassTable",
    "Dataset",
    "Pictures",
    "Provenance",
    "Split",
    "TestRows",
    "TrainingView",
    "TransductiveView",
    "open_dataset",
]
