"""Which encoder turns pictures into the rows of a classifier. A folder's word is never enough to load one, but for ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from unseen.encoders.backbones import EncoderChoice, PictureEncoder
from unseen.encoders.images import ImageEncoder
from unseen.errors import InputError


@lru_cache(maxsize=4)
def built(name: str) -> PictureEncoder:
    """The encoder of this name, ready; the same one each time, for all classifiers of this process."""
    return EncoderChoice(name).build()


def picture_encoder(name: str | None, told: Mapping[str, str] | None, width: int) -> PictureEncoder:
    """The encoder of this name, ready.

    Args:
        name: what `unseen features --encoder` takes; told: name and fingerprint, as a folder says; width: of a row.

    Raises InputError where nobody named one, or it is another than the folder says, or one of other rows; and as
    `EncoderChoice.build` does.
    """
    if name is None and told is not None:
        raise InputError(
            f"the classifier learned from pictures by {told['name'][:80]!r}, which is not loaded because a folder says so; "
            "name it as image_encoder when you load the classifier"
        )
    if name is None:
        raise InputError(
            "nothing says how pictures become the rows of this classifier; give it the name of their encoder as image_encoder"
        )
    if not isinstance(name, str):
        raise InputError(f"image_encoder is the name of an encoder, or None, not {type(name).__name__}")
    encoder = built(name)
    if told is not None and told["fingerprint"] != encoder.fingerprint:
        raise InputError(
            f"the classifier learned from pictures by another encoder ({told['name'][:80]!r}) than {name}; give that"
        )
    if encoder.dimension != width:
        raise InputError(
            f"{name} makes {encoder.dimension} numbers of a picture, but the classifier learned from {width}; give another"
        )
    return encoder


def told_of(name: str | None, told: Mapping[str, str] | None) -> dict[str, str] | None:
    """Name and fingerprint of an encoder, for a folder: that of this name, else what an older folder said.

    Raises as `EncoderChoice.build` does. That of ours is known without loading it.
    """
    if name is None:
        return None if told is None else dict(told)
    encoder = ImageEncoder() if name == ImageEncoder.name else built(name)
    return {"name": name, "fingerprint": encoder.fingerprint}
