"""AlgoPuzzleVQA: 1,800 puzzles that an algorithm solves, 18 categories of 100 (declare-lab/LLM-PuzzleTest; MIT).

    Q: ... Is it possible to place all the 27 dominoes in the checkerboard ...?   (A) Yes (B) No   -> No

Items, prompts and rules: vlprm/benchmarks/puzzles.py.
"""

from __future__ import annotations

from vlprm.benchmarks.benchmark import Item
from vlprm.benchmarks.puzzles import official_prompt, puzzle_benchmark

CATEGORIES = (
    "board_tile", "calendar", "chain_link", "checker_move", "clock", "colour_hue", "map", "maze", "move_box",
    "n_queens", "number_slide", "rotting_kiwi", "rubiks_cube", "think_dot", "tower_of_hanoi", "water_jugs",
    "wheel_of_fortune", "wood_slide",
)  # fmt: skip


def prompt(item: Item) -> str:
    """PuzzleVQA's prompt plus a sentence that the official script omits only for GPT-4V, LLaVA and Claude."""
    return official_prompt(item, " Do not directly give the final answer.")


BENCHMARK = puzzle_benchmark("algopuzzlevqa", "declare-lab/AlgoPuzzleVQA", CATEGORIES, lambda category: {}, prompt)
