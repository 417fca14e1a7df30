"""What the data of the benchmarks look like that settings were published for, so that a name alone does not bring them.

CUB goes about with 312 attributes and with sentences of 1024 values, CUB and FLO with the features of the public split files
and with those of E-PGN's `data.mat`, all under one name; on one of them the settings for another say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unseen.data.dataset import Dataset
from unseen.data.epgn import FEATURE_FILE, has_epgn_features


@dataclass(frozen=True)
class Benchmark:
    """Data that settings were published for.

    Args:
        embedding: length of a class embedding.
        epgn: the features are those of E-PGN's `data.mat`.
        feature: length of a feature.
    """

    embedding: int
    epgn: bool = False
    feature: int = 2048

    def misfit(self, data: Dataset) -> str:
        """What these are that the data are not, in words; "" where nothing says that they are others."""
        for what, wanted, found in (
            ("features", self.feature, data.features.shape[1]),
            ("class embeddings", self.embedding, data.classes.embeddings.shape[1]),
        ):
            if wanted != found:
                return f"{what} of {wanted} values, not of {found}"
        if self.epgn == has_epgn_features(data):
            return ""
        epgn = f"of E-PGN's {FEATURE_FILE}"
        return f"the features {epgn}, not others" if self.epgn else f"features of the public split files, not those {epgn}"


PUBLIC: Mapping[str, Benchmark] = {
    "awa1": Benchmark(85),
    "awa2": Benchmark(85),
    "apy": Benchmark(64),
    "cub": Benchmark(312),
    "flo": Benchmark(1024),
    "sun": Benchmark(102),
}
"""ResNet-101 features and class embeddings of the public split files."""

EPGN: Mapping[str, Benchmark] = {**PUBLIC, "cub": Benchmark(1024, epgn=True), "flo": Benchmark(1024, epgn=True)}
"""The same, but for CUB and FLO, which come in E-PGN's layout."""
