"""unseen: recognise classes that you have no example of."""

from unseen.data import ClassTable, Dataset, Provenance, Split, TrainingView, open_dataset
from unseen.errors import DataError, MissingDependency, RunError, SettingsError, UnseenError

__version__ = "0.1.0"

__all__ = [
    "ClassTable",
    "DataError",
    "Dataset",
    "MissingDependency",
    "Provenance",
    "RunError",
    "SettingsError",
    "Split",
    "TrainingView",
    "UnseenError",
    "__version__",
    "open_dataset",
]
