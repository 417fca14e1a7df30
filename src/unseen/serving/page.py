"""The page for people: one file, made to run under a policy that allows its own script and style and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from fastapi import Response

FILE = Path(__file__).parent / "page.html"


@functools.cache
def content() -> tuple[str, str]:
    """The page, and its content security policy."""
    html = FILE.read_text("utf-8")
    policy = [
        "default-src 'none'",
        f"script-src {_hashes(html, 'script')}",
        f"style-src {_hashes(html, 'style')}",
        "connect-src 'self'",
        "img-src blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return html, "; ".join(policy)


def page() -> Response:
    """The page as an answer."""
    html, policy = content()
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})


def _hashes(html: str, element: str) -> str:
    """Of what stands in the elements of this kind, as a policy names what may run."""
    found = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found)
