"""The option of the contract test."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/contract --method my_module:ENTRY`."""
    parser.addoption(
        "--method", metavar="MODULE:ENTRY", help="test this method alone; also the name of one of ours or an installed one"
    )
