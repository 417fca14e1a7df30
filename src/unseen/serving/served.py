"""The model that is served: one immutable snapshot at a time, and changes that make the next one.

A request takes the snapshot that is current when its turn comes, and uses nothing else. A change is computed on a copy while
the old snapshot goes on answering, and becomes current by one assignment. So no answer is a mixture of two sets of classes, and
each names the revision that it came from: a hash of everything that scores depend on, the same wherever the model is the same.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from unseen.errors import DataError, SettingsError, UnseenError
from unseen.inference import Answers, OnnxClassifier
from unseen.storage import alone, fingerprint, hash_of

if TYPE_CHECKING:
    from unseen.classifier import ZeroShotClassifier
    from unseen.encoders.backbones import PictureEncoder

MANIFEST = "model.json"
"""As `unseen.saved` calls it, which needs torch; an exported classifier is served without."""

REVISION = 16
"""Hexadecimal digits of a hash that name a revision."""


class Refused(UnseenError):
    """A change that this model does not take: the class is there already or not at all, or the model cannot learn."""


@dataclass(frozen=True)
class Snapshot:
    """One state of the model. Never changed, so any number of requests may use it at a time.

    Args:
        classifier: nobody calls a method of it that changes it.
        revision: names the state.
        names: (C,) class names, in the order of the columns of its answers; seen: (C,) which had examples.
        added: when a class was added to the running server; classes that came with the model are not in it.
    """

    classifier: ZeroShotClassifier | OnnxClassifier
    revision: str
    names: tuple[str, ...]
    seen: tuple[bool, ...]
    added: Mapping[str, datetime] = field(default_factory=dict)

    @staticmethod
    def of(classifier: ZeroShotClassifier | OnnxClassifier, added: Mapping[str, datetime] | None = None) -> Snapshot:
        """A classifier as it is now; `added` may name classes that are gone."""
        if isinstance(classifier, OnnxClassifier):
            return Snapshot(classifier, classifier.sha256[:REVISION], classifier.names, tuple(classifier.seen.tolist()))
        fitted = classifier.fitted_
        arrays = {name: tensor.cpu().numpy() for name, tensor in fitted.scores.tensors().items()} | fitted.scaler.arrays()
        said = [fitted.names, fitted.seen.tolist(), fitted.gamma, fitted.temperature, sorted(arrays)]
        digest = hash_of([said, fingerprint(*(arrays[name] for name in sorted(arrays)))])
        kept = {name: when for name, when in (added or {}).items() if name in fitted.names}
        return Snapshot(classifier, digest[:REVISION], fitted.names, tuple(fitted.seen.tolist()), kept)

    def answers(self, rows: NDArray[Any]) -> Answers:
        """What it says of (n, d) features, or (n, 224, 224, 3) pictures where it takes these.

        Raises DataError for rows of another shape, or too large to be scored.
        """
        classifier = self.classifier
        answer: Any = classifier.predict if isinstance(classifier, OnnxClassifier) else classifier.answers
        answers: Answers = answer(rows)
        return answers


class Served:
    """A model, and how it changes.

    Args:
        model: a folder that `save` wrote, a file that `unseen export` wrote, or a classifier.
        most: classes that it may have after an addition.
        encoder, image_encoder: as `ZeroShotClassifier.load` takes them.
        save: whether each change is written back to the folder before it is answered from.

    Raises:
        SettingsError: the model cannot be saved back.
        DataError, MissingDependency: as opening it does.
    """

    def __init__(
        self,
        model: Path | ZeroShotClassifier | OnnxClassifier,
        most: int,
        *,
        encoder: str | None = None,
        image_encoder: str | None = None,
        save: bool = False,
    ) -> None:
        if save and (not isinstance(model, Path) or model.is_file()):
            raise SettingsError("only a model in a folder is saved back; leave --save out")
        self._folder = model if save and isinstance(model, Path) else None
        with self._alone():
            classifier = opened(model, encoder, image_encoder) if isinstance(model, Path) else model
            self._on_disk = self._manifest()
        self._most = most
        self._changing = threading.Lock()
        self.current = Snapshot.of(copy.copy(classifier))
        self.encoder: PictureEncoder | None = None
        if isinstance(classifier, OnnxClassifier):
            self.takes_features, self.takes_pictures = classifier.takes == "features", classifier.takes == "pictures"
            self.width = classifier.shape[0] if self.takes_features else None
            self.told_by, self.why_not = None, "an exported classifier learns no classes; serve the model that it was made from"
            return
        self.takes_features, self.width = True, int(classifier.n_features_in_)
        if classifier.image_encoder is not None:
            self.encoder = classifier.picture_encoder()
        self.takes_pictures = self.encoder is not None
        self.told_by = classifier.told_by_
        self.why_not = ""
        if self.told_by is None:
            self.why_not = (
                "the model was fitted without descriptions or saved for inference only, so it learns no classes; serve another"
            )

    def add(self, name: str, said: str | Sequence[float]) -> Snapshot:
        """Learn a class from its description or embedding, and answer from then on with it.

        Raises:
            Refused: it is known, there are too many, the model learns none, or the one in the folder is another by now.
            DataError: the name or what is said cannot be learned from.
            BeingChanged: a command is changing it at this moment.
            RunError: the model cannot be saved; then it stays as it was.
        """

        def change(classifier: ZeroShotClassifier, now: Snapshot) -> str:
            from unseen.given import label_like

            label = label_like(classifier.classes_, name)
            if str(label) in now.names:
                raise Refused(f"class {name[:100]!r} is known already; choose another name, or remove it first")
            if len(now.names) >= self._most:
                raise Refused(f"there are {len(now.names)} classes already, and this server takes no more; remove one first")
            classifier.add_classes({label: said})
            return str(label)

        return self._changed(change)

    def remove(self, name: str) -> Snapshot:
        """Answer a class no more. Only one that was never seen, as only such a one can be added again.

        Raises Refused for another one, and as `add`.
        """

        def change(classifier: ZeroShotClassifier, now: Snapshot) -> None:
            from unseen.given import label_like

            called = name
            with suppress(DataError):  # no number, and so no class, where they are called by numbers
                called = str(label_like(classifier.classes_, name))
            if called not in now.names:
                raise Refused(f"there is no class {name[:100]!r}; GET /classes lists them")
            place = now.names.index(called)
            if now.seen[place]:
                raise Refused(f"class {name[:100]!r} was learned from examples, which a removal would lose; it stays")
            classifier.remove_classes(classifier.classes_[[place]])

        return self._changed(change)

    def _changed(self, change: Callable[[ZeroShotClassifier, Snapshot], str | None]) -> Snapshot:
        """One change after the other: on a copy, saved, made current.

        Args:
            change: changes a classifier; says which class it added.
        """
        with self._changing, self._alone():
            if self._manifest() != self._on_disk:
                raise Refused("the model was changed on disk; restart the server")
            now = self.current
            if isinstance(now.classifier, OnnxClassifier) or self.told_by is None:
                raise Refused(self.why_not)
            classifier = copy.copy(now.classifier)
            name = change(classifier, now)
            new = {} if name is None else {name: datetime.now(UTC).replace(microsecond=0)}
            after = Snapshot.of(classifier, {**now.added, **new})
            if self._folder is not None:
                classifier.save(self._folder)
                self._on_disk = self._manifest()
            self.current = after
            return after

    def _alone(self) -> AbstractContextManager[None]:
        """Keep commands from changing the folder that changes are saved to, where there is one."""
        return nullcontext() if self._folder is None else alone(self._folder / MANIFEST)

    def _manifest(self) -> str | None:
        """What tells the model that is in this folder from any other; None where there is none."""
        try:
            return None if self._folder is None else sha256((self._folder / MANIFEST).read_bytes()).hexdigest()
        except OSError:
            return None


def opened(path: Path, encoder: str | None, image_encoder: str | None) -> ZeroShotClassifier | OnnxClassifier:
    """A file as an exported classifier, anything else as a saved one; torch is needed for the latter only."""
    if path.is_file():
        return OnnxClassifier(path)
    from unseen.classifier import ZeroShotClassifier

    return ZeroShotClassifier.load(path, encoder=encoder, image_encoder=image_encoder)
