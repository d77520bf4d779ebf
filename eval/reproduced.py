"""Recompute the published benchmark numbers from the published model outputs.

python -m eval.reproduced --data data
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.score import ScoreConfig, score
from vlprm.runs.config import run


@dataclass(frozen=True)
class ReproducedConfig:
    """Print published and recomputed scores.

    Args:
        data: folder with one folder per benchmark, each with its items and the published `outputs`.
    """

    data: Path


@dataclass(frozen=True)
class PublishedRun:
    """Outputs from a benchmark's public repository, and how many of them it counts as right."""

    title: str
    name: str
    benchmark: str
    file: str
    published: int
    rule: str = "official"
    guess: bool = False


RUNS = (
    PublishedRun("MathVista testmini", "Bard", "mathvista", "output_bard.json", 348),
    PublishedRun("", "LLaVA-LLaMA-2-13B", "mathvista", "output_llava_llama_2_13b.json", 261),
    PublishedRun("", "LLaVAR", "mathvista", "output_llavar.json", 252),
    PublishedRun("", "GPT-4, text alone", "mathvista", "output_gpt4.json", 261),
    PublishedRun("", "random guess", "mathvista", "output_random_guess.json", 179),
    PublishedRun("", "IDEFICS-9B-Instruct", "mathvista", "output_idefics_9b_instruct.json", 198, "as_published"),
    PublishedRun("MathVision", "InternLM-XComposer2-VL, CoT", "mathvision", "InternLM-XComposer2-VL-CoT.jsonl", 437),
    PublishedRun("", "SPHINX-MoE", "mathvision", "SPHINX-MoE.jsonl", 431),
    PublishedRun("", "LLaVA-1.5-13B", "mathvision", "LLaVA-v1.5-13B.jsonl", 338),
    PublishedRun("", "Qwen-VL-Plus", "mathvision", "Qwen-VL-Plus.jsonl", 326),
    PublishedRun("", "random chance", "mathvision", "Random-Chance.jsonl", 218),
    PublishedRun("", "Gemini Pro", "mathvision", "Gemini-Pro.jsonl", 537),
    PublishedRun(
        "MMMU validation", "LLaVA-1.5-13B, responses", "mmmu", "llava1.5_13b_by_subject.json", 330, guess=True
    ),
    PublishedRun("", "LLaVA-1.5-13B, letters", "mmmu", "llava1.5_13b_val.json", 324),
    PublishedRun("MMMU-Pro, 4 options", "InternVL2-8B, direct", "mmmu_pro", "InternVL2-8B_standard4_direct.jsonl", 747),
    PublishedRun("MMMU-Pro, 10 options", "GPT-4o, direct", "mmmu_pro", "gpt-4o_standard10_direct.jsonl", 694),
    PublishedRun("PuzzleVQA, 9 categories", "GPT-4o, debate", "puzzlevqa", "gpt4o_outputs_debate.jsonl", 561),
)


def table(data: Path) -> str:
    """Markdown table of the number of right answers, as published and as scored here."""
    rows = ["| benchmark | published run | rule | published | here |", "|---|---|---|---|---|"]
    for r in RUNS:
        folder = data / r.benchmark
        made = score(ScoreConfig(r.benchmark, folder / "outputs" / r.file, folder, r.rule, guess=r.guess))
        rule = f"`{r.rule}`, draws" if r.guess else f"`{r.rule}`"
        total, percent = made["total"], 100 * made["accuracy"]
        here = f"{made['correct']} of {total:,} ({percent:.1f}%)"
        rows.append(f"| {r.title} | {r.name} | {rule} | {r.published} | {here} |")
    return "\n".join(rows)


def main(config: ReproducedConfig) -> None:
    """Print the table."""
    print(table(config.data))


if __name__ == "__main__":
    run(main, ReproducedConfig)
