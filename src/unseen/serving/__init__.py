"""A classifier over HTTP: an interface for programs, and a page for people.

Example:
    >>> app = create_app(Path("model"), token="a long secret")  # doctest: +SKIP
    >>> uvicorn.run(app)  # doctest: +SKIP  # or any other ASGI server; `unseen serve` also bounds connections
"""

from __future__ import annotations

from unseen.errors import MissingDependency

try:
    import fastapi as _  # noqa: F401
    import python_multipart as _  # noqa: F401
    import uvicorn as _  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingDependency(f"serving needs the package '{error.name}'; run: pip install 'unseen[serve]'") from error

from unseen.serving.app import create_app
from unseen.serving.limits import Limits

__all__ = ["Limits", "create_app"]
