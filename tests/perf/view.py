"""Cost of a run's page: 100,000 scored candidates to a table, a page and a server; 1,000 photographs in one file.

    python -m tests.perf.view

The run has 12,500 problems of 8 candidates, in the files that the stages write; each command runs in a process of its
own, and its seconds include the start of Python. The page in the browser (headless Chromium) has images and solutions
as large as those of benchmarks: 1,024 x 768 pixels, 8 candidates of 8 steps.
"""

from __future__ import annotations

import io
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval import report, view
from tests.browser import opened_page
from tests.conftest import write_labelled_trees
from tests.perf.cost import in_a_process
from tests.perf.pools import scores_of, solutions_of
from tests.perf.results import write_result
from tests.stored import Record, pool_record
from tests.stored import write_run as write_pools
from vlprm.tasks import TASKS, problem_by_id
from vlprm.tasks.synthetic import item_ids
from vlprm.viewer.page import MAX_PROBLEMS, render_page
from vlprm.viewer.serve import PageServer
from vlprm.viewer.views import CandidateView, Problems, ProblemView, StepView

CANDIDATES, PROBLEMS = 8, 12_500
SECONDS, MEGABYTES, PAGE_MEGABYTES, FIRST_VIEW = 30, 2_000, 50, 2
WORDS = ("the bar", "of the left group", "stands above", "the line", "drawn at forty", "and below", "the next one")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="view-"))
    try:
        write_run(folder)
        rows = [{**in_a_process(stage, folder), "records": PROBLEMS * CANDIDATES} for stage in (table_and_page, served)]
        rows.append(in_the_browser(folder))
    finally:
        shutil.rmtree(folder)
    commands = rows[:2]
    write_result(
        "view",
        rows,
        {
            "seconds_100k": (max(row["seconds"] for row in commands), SECONDS),
            "peak_mb_100k": (max(row["peak_mb"] for row in commands), MEGABYTES),
            "page_mb_1k": (rows[2]["page_mb"], PAGE_MEGABYTES),
            "first_view_s_1k": (rows[2]["first_view_s"], FIRST_VIEW),
        },
    )


def write_run(folder: Path) -> None:
    """Writes a finished run: drawn problems, solutions with one wrong reading in ten, random rewards."""
    rng = random.Random(0)
    ids = item_ids(list(TASKS.values()), "test", PROBLEMS)
    write_pools(folder / "eval", [scored(at, i, rng) for at, i in enumerate(ids)])
    write_labelled_trees(folder / "labels" / "dataset.parquet")


def table_and_page(folder: Path) -> None:
    report.main(report.ReportConfig(folder))


def served(folder: Path) -> None:
    """Starts a server, and asks for its first answers."""
    with PageServer(0, "100,000", view.run_sections(folder), view.run_problems(folder, TASKS)) as server:
        for path in ("/", "/facts", "/problem", "/image"):
            assert server.answer(path, lambda name: {"at": PROBLEMS - 1, "count": 2000}.get(name, 0))


def in_the_browser(folder: Path) -> dict[str, Any]:
    path = folder / "photographs.html"
    path.write_text(render_page("1,000", [], Photographs()))
    with opened_page(f"{path.as_uri()}#problem-500") as page:
        page.locator("#problem .question").wait_for()
        first_view = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        ready = page.evaluate("performance.now()")
        started = page.evaluate("performance.now()")
        page.keyboard.press("j")
        page.get_by_text("Which bar is longest, 501?", exact=True).last.wait_for()
        opened = page.evaluate("performance.now()") - started
    row = {
        "what": "page of 1,000 problems in Chromium",
        "page_mb": round(path.stat().st_size / 1e6, 1),
        "first_view_s": round(first_view / 1000, 2),
        "problem_open_s": round(ready / 1000, 2),
        "next_problem_s": round(opened / 1000, 3),
    }
    print(row, flush=True)
    return row


class Photographs(Problems):
    """Problems with one image each, which compresses about as well as a photograph."""

    def __len__(self) -> int:
        return MAX_PROBLEMS

    def view(self, at: int) -> ProblemView:
        rng = random.Random(at)
        candidates = tuple(CandidateView(tuple(_step(rng) for _ in range(8)), "3", True) for _ in range(CANDIDATES))
        return ProblemView(f"item/{at}", "photographs", "", f"Which bar is longest, {at}?", "3", 1, candidates)

    def images(self, at: int) -> tuple[bytes, ...]:
        coarse = np.random.default_rng(at).integers(0, 256, (36, 48, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((1024, 768), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return (file.getvalue(),)


def _step(rng: random.Random) -> StepView:
    return StepView(f"[reasoning] {' '.join(rng.choices(WORDS, k=20))}", "reasoning", rng.random(), rng.random() > 0.1)


def scored(at: int, problem_id: str, rng: random.Random) -> Record:
    problem = problem_by_id(problem_id, TASKS, drawn=False)
    pool = solutions_of(problem, CANDIDATES, rng)
    return pool_record(at, problem, pool, [scores_of(len(s.steps), rng) for s in pool], [rng.random() for _ in pool])


if __name__ == "__main__":
    main()
