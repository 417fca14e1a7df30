"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data: `$UNSEEN_DATA`, else beside the repository. Without it: skipped, but failed in CI."""
    folder = Path(os.environ.get("UNSEEN_DATA") or Path(__file__).resolve().parents[1] / "../shared/data").resolve()
    if not folder.is_dir():
        reason = f"the shared data are not at {folder}; set UNSEEN_DATA to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
