"""Pictures and texts to numbers. The backbones are optional packages; nothing heavy is imported before it is used."""

from unseen.encoders.embedding import embed
from unseen.encoders.images import ImageEncoder
from unseen.encoders.text import TextEncoder

__all__ = ["ImageEncoder", "TextEncoder", "embed"]
