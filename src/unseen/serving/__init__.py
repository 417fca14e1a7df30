"""A classifier over HTTP: an interface for programs, and a page for people.

Example:
    >>> app = create_app(Path("model"), token="a long secret")  # doctest: +SKIP
    >>> uvicorn.run(app)  # doctest: +SKIP  # or any other ASGI server; `unseen serve` also bounds connections
"""

from __future__ import annotations

from importlib.util import find_spec

from unseen.errors import MissingDependency

for name in ("fastapi", "python_multipart", "uvicorn"):
    if find_spec(name) is None:
        raise MissingDependency(f"serving needs the package '{name}'; run: pip install 'unseen[serve]'")

from unseen.serving.app import create_app  # noqa: E402
from unseen.serving.limits import Limits  # noqa: E402

__all__ = ["Limits", "create_app"]
