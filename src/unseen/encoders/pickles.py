"""No pickle is read while other libraries load a model, whatever they would prefer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

from unseen.errors import DataError


@contextmanager
def no_pickles() -> Iterator[None]:
    """While this lasts torch loads no file of its own format, which is pickled and can hold a program.

    timm, open_clip and sentence-transformers take safetensors where they find them; where a hub or a folder has nothing else,
    they would ask torch. Not for use in several threads.

    Raises DataError where one of them asks.
    """
    import torch

    def refuse(file: Any, *_: Any, **__: Any) -> NoReturn:
        raise DataError(
            f"the weights {str(file)[:200]} are pickled, and nothing but safetensors is read, as they could hold a program; "
            "where you trust them: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        )

    with patch.object(torch, "load", refuse), patch.object(torch.jit, "load", refuse):
        yield
