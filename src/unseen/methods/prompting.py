"""Zero-shot prompting: where one model has a picture tower and a text tower, the class whose text is nearest to the picture.

Reference: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021. Features
are the picture tower's, class embeddings the text tower's of prompts such as "a photo of a heron". Nothing is learnt from the
seen rows; the protocols give it γ like every other method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from unseen.data.dataset import Dataset
from unseen.data.towers import of_one_model
from unseen.errors import DataError, SettingsError
from unseen.linear import LinearScores
from unseen.methods.base import above_0
from unseen.scaling import ScaledView, Scaling

ROUNDING = 1e-3
"""Rows whose lengths differ by a larger share were not scaled to one length."""


@dataclass(frozen=True)
class Prompting:
    """Scores τ cos(x, c).

    Args:
        temperature: τ, which multiplies the cosines and changes no ranking; CLIP's was learnt, and held at 100 or below.
    """

    temperature: float = 100.0

    SCALINGS: ClassVar[tuple[Scaling, ...]] = ("l2",)
    GRID: ClassVar[dict[str, tuple[float, ...]]] = {"temperature": (100.0,)}

    def __post_init__(self) -> None:
        above_0(temperature=self.temperature)

    def fit(self, view: ScaledView) -> LinearScores:
        """Rows have one length ℓ and embeddings length 1, so τ cos(x, c) = x (τ c / ℓ), linear in x.

        Raises:
            DataError: features and embeddings differ in width.
            SettingsError: the rows were not scaled to one length.
        """
        d, a = view.features.shape[1], view.embeddings.shape[1]
        if d != a:
            raise DataError(
                f"features are {d} numbers long and class embeddings {a}, so they have no angle between them; "
                "prompting needs both from one text-image model"
            )
        lengths = view.features.double().norm(dim=1)
        length = lengths.max() if lengths.any() else torch.ones_like(lengths.max())
        if ((lengths - length).abs() > ROUNDING * length)[lengths > 0].any():  # a row of zeros has no direction at any scaling
            raise SettingsError("prompting compares directions, and these rows differ in length; set scaling=l2")
        weight = self.temperature * view.embeddings.double() / length
        return LinearScores(weight.float(), torch.zeros(len(weight), device=weight.device))


def refuse_two_spaces(data: Dataset) -> None:
    """Raise DataError unless the provenance says that one model made both: as the encoders of open_clip say it, or because what
    made the embeddings begins with what made the features, as "CLIP ViT-B/32, 'a photo of a {}'" does with "CLIP ViT-B/32".
    """
    features, embeddings = data.provenance.feature_extractor.strip(), data.provenance.embedding_source.strip()
    if of_one_model(features, embeddings):
        return
    if features.casefold() in ("", "unknown") or not embeddings.casefold().startswith(features.casefold()):
        said = [" ".join(text.split())[:80] for text in (features, embeddings)]  # of open_clip with some of the tensors' hash
        raise DataError(
            f"prompting needs features and class embeddings of one text-image model, and data set '{data.name}' says that "
            f"its own are of '{said[0]}' and '{said[1]}'; if one model made both, let the provenance's embedding_source "
            "begin with its feature_extractor"
        )
