"""unseen: recognise classes that you have no example of."""

from typing import TYPE_CHECKING, Any

from unseen.data import ClassTable, Dataset, Provenance, Split, TrainingView, open_dataset
from unseen.errors import DataError, MissingDependency, RunError, SettingsError, UnseenError

if TYPE_CHECKING:
    from unseen.classifier import ZeroShotClassifier

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
    "ZeroShotClassifier",
    "__version__",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    """The classifier, when it is asked for: it needs torch and scikit-learn, which take seconds to import."""
    if name == "ZeroShotClassifier":
        from unseen.classifier import ZeroShotClassifier

        return ZeroShotClassifier
    raise AttributeError(f"module 'unseen' has no attribute {name!r}")
