"""How a data set's provenance says that features and class embeddings are of one text-image model's two towers.

The encoders write it, zero-shot prompting reads it:

    features      open_clip ViT-B-32, SHA-256 of the tensors 41…; image tower, …
    embeddings    open_clip ViT-B-32, SHA-256 of the tensors 41…; text tower, …
"""

from __future__ import annotations

IMAGE, TEXT = "; image tower", "; text tower"
"""What stands before either names the model: its name, and the hash of all its tensors, of both towers."""


def of_one_model(features: str, embeddings: str) -> bool:
    """Whether these two sentences of a provenance name one model, the first its image tower and the second its text tower."""
    model, image_tower, _ = features.strip().casefold().partition(IMAGE)
    other, text_tower, _ = embeddings.strip().casefold().partition(TEXT)
    return bool(model and image_tower and text_tower) and model == other
