"""PuzzleVQA: 2,000 abstract patterns with a missing part, 20 categories of 100 (declare-lab/LLM-PuzzleTest; MIT).

    Q: What is the missing number of the part denoted with a question mark?   (A) 6 (B) 3 (C) 4 (D) 2   -> 4

A concept is one or two of colours, numbers, sizes and shapes, and has two categories; the published tables are means
over concepts. Items, prompts and rules: vlprm/benchmarks/puzzles.py.
"""

from __future__ import annotations

from vlprm.benchmarks.puzzles import official_prompt, puzzle_benchmark

CONCEPTS = {
    "triangle": "Numbers", "grid_number": "Numbers", "color_grid": "Colors", "color_hexagon": "Colors",
    "shape_reflect": "Shapes", "shape_morph": "Shapes", "size_cycle": "Size", "size_grid": "Size",
    "color_number_hexagon": "Colors & Numbers", "grid_number_color": "Colors & Numbers",
    "venn": "Numbers & Shapes", "polygon_sides_number": "Numbers & Shapes",
    "circle_size_number": "Numbers & Size", "rectangle_height_number": "Numbers & Size",
    "polygon_sides_color": "Colors & Shapes", "color_overlap_squares": "Colors & Shapes",
    "rectangle_height_color": "Colors & Size", "color_size_circle": "Colors & Size",
    "shape_size_hexagon": "Size & Shapes", "shape_size_grid": "Size & Shapes",
}  # fmt: skip


def groups(category: str) -> dict[str, tuple[str, ...]]:
    """The concept of a category, and whether it is single or dual."""
    concept = CONCEPTS[category]
    return {"concept": (concept,), "concepts": ("dual" if "&" in concept else "single",)}


BENCHMARK = puzzle_benchmark("puzzlevqa", "declare-lab/PuzzleVQA", sorted(CONCEPTS), groups, official_prompt)
