"""Correctness and speed on a GPU, with a step-reward model of 3B shape. No download; at most ten minutes.

    make gpu-check        or: python -m tests.perf.gpu_check

First, a small model must agree between the GPU's code paths (a FlexAttention block mask, bfloat16) and the CPU in
float32. Then a randomly initialised Qwen2.5-VL of 3B shape in bfloat16 trains on paths in random batches, on paths
under a token budget, and on whole trees. Measured are labelled steps and tokens per second, peak memory, and the share
of the card's peak FLOPS that the matrix products of the unpadded tokens reach. Results go to
runs/bench/gpu_check.json; docs/performance.md has the last ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.perf.results import write_result
from tests.perf.train_rows import VARIANTS, backbones, batches_of, real_tokens, train_on, tree, write_qwen2_5_vl
from train.loop.batches import model_inputs
from train.reward.batches import NOT_INPUTS
from vlprm.model.loading import Checkpoint
from vlprm.model.reward_loading import load_reward_model

TREES, ROUNDS, SIDE = 4, 3, 616
TEXT_3B = {
    "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
    "intermediate_size": 11_008,
}  # fmt: skip
VISION_3B = {
    "depth": 32, "num_heads": 16, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40": 362, "4090": 165}  # dense bfloat16, by the vendor


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no GPU on this machine; make gpu-check is for one")
    worst = disagreement()
    folder = Path(tempfile.mkdtemp(prefix="gpu_check-"))
    write_qwen2_5_vl(folder, TEXT_3B, VISION_3B, mrope_sections=(16, 24, 24))
    checkpoint = load_reward_model(folder, "cuda", torch.bfloat16, new_head="step")
    checkpoint.model.train()
    checkpoint.model.gradient_checkpointing_enable({"use_reentrant": False})
    rows = [measured(checkpoint, variant) for variant in VARIANTS]
    ratio = rows[-1]["steps_per_second"] / rows[0]["steps_per_second"]
    write_result("gpu_check", rows, {"trees_over_paths": (ratio, 4.0), "max_abs_error": (worst, 0.03)})


def disagreement() -> float:
    """Largest difference of a step's reward on trees: bfloat16 on the GPU against float32 on the CPU."""
    folder, side = backbones()["qwen2_5_vl"]
    found = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.float32), ("cuda", torch.bfloat16)):
        checkpoint = load_reward_model(folder, device, dtype, new_head="step")
        torch.manual_seed(0)
        checkpoint.model.score.weight.data = torch.randn(3, 256).to(device, dtype) * 0.05
        (batch,) = batches_of("trees", [tree(0, side)], checkpoint)
        with torch.no_grad():
            found.append(
                checkpoint.model(**model_inputs(on(batch, device), NOT_INPUTS)).logits.float().softmax(-1).cpu()
            )
    exact = float((found[1] - found[0]).abs().max())
    assert exact < 1e-4, f"float32 on the GPU differs by {exact} from the CPU"
    return float((found[2] - found[0]).abs().max())


def measured(checkpoint: Checkpoint, variant: str) -> dict[str, Any]:
    trees = [tree(i, SIDE) for i in range(TREES)]
    batches = [on(batch, "cuda") for batch in batches_of(variant, trees, checkpoint)]
    train_on(batches, checkpoint)  # compiles
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(ROUNDS):
        checkpoint.model.zero_grad()
        torch.cuda.synchronize()
        started = time.perf_counter()
        train_on(batches, checkpoint)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    best, tokens = min(seconds), real_tokens(batches)
    labelled = sum(len({node for path in paths for node in path.nodes}) for paths in trees)
    text = sum(p.numel() for name, p in checkpoint.model.named_parameters() if "language_model.layers" in name)
    row = {
        "variant": variant,
        "device": torch.cuda.get_device_name(),
        "steps_per_second": labelled / best,
        "tokens_per_second": tokens / best,
        "share_of_peak": 8 * text * tokens / best / (peak() * 1e12),  # 6, and 2 to compute activations again
        "peak_gb": torch.cuda.max_memory_allocated() / 2**30,
    }
    print(row, flush=True)
    return row


def on(batch: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) for name, value in batch.items()}


def peak() -> float:
    name = torch.cuda.get_device_name()
    return next((tflops for card, tflops in PEAK_TFLOPS.items() if card in name), float("nan"))


if __name__ == "__main__":
    main()
