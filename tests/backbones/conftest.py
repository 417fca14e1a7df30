"""Lets torchvision be imported beside a torch for the CPU alone, for which no torchvision is made."""

from __future__ import annotations

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators of torchvision's compiled part that its Python part refers to when it is imported; nothing here calls them."""

library = torch.library.Library("torchvision", "FRAGMENT")
if not torch.cuda.is_available() and "+cpu" in torch.__version__:
    for schema in SCHEMAS:
        library.define(schema)
