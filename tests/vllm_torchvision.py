"""Goes into vLLM's environment (see the Makefile) and declares the two operators that torchvision's import needs.
Nothing calls them; torchvision's own library, which has them, is built for another torch."""

import torch

DECLARED = torch.library.Library("torchvision", "DEF")
DECLARED.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
DECLARED.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
