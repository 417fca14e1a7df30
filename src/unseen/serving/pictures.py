"""Pictures that came over the network, on their way to rows."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unseen.encoders.images import cropped, decoded_rgb

if TYPE_CHECKING:
    from unseen.encoders.backbones import PictureEncoder


def rows_of(pictures: Sequence[bytes], encoder: PictureEncoder | None, pixels: int) -> NDArray[Any]:
    """Features by the model's own encoder; without one, what an exported classifier with its backbone in front takes.

    Args:
        pictures: n files; at least one.
        pixels: that a picture may have.

    Raises DataError for one that is no picture, or too large; the sentence counts from 1.
    """
    opened = (decoded_rgb(BytesIO(data), str(number), pixels) for number, data in enumerate(pictures, 1))
    if encoder is None:
        return np.stack([cropped(picture) for picture in opened])
    parts = []
    while batch := [encoder.prepared(picture) for picture in islice(opened, encoder.batch_size)]:
        parts.append(encoder.pooled(np.stack(batch)))
    return np.concatenate(parts)
