"""From what a user types to a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from unseen import open_dataset
from unseen.data import Dataset
from unseen.errors import DataError


def test_a_native_folder_is_opened_also_from_home(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.save(tmp_path / "d")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset(str(tmp_path / "d")).features_fingerprint == tiny.features_fingerprint
    assert open_dataset("~/d").name == "tiny"


@pytest.mark.parametrize("typed", ["emojy", "", ".", "~nobody-of-this-name/d", "x" * 5000, "a\0b", "none/none.mat"])
def test_what_is_no_data_set_is_a_sentence(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        open_dataset(typed)
    assert str(caught.value).endswith("; check the path")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_the_sentence_lists_what_can_be_opened(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"neither a built-in data set \(emoji\) nor a folder with dataset.json, with res101.mat"
    ):
        open_dataset(str(tmp_path))
