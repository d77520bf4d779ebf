"""The page: text of models cannot become markup, and nothing is fetched from elsewhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.test_measure import POOLS
from vlprm.dataset import LabelledPath
from vlprm.schema import Region, StepLabel
from vlprm.steps import parse_step
from vlprm.tasks import TASKS
from vlprm.viewer.page import CandidateView, ProblemView, StepView, render_page, reward_colour, tree_view, zoom_boxes

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<script>alert('x')</script>\"'&\x07"


def page() -> str:
    from eval import measure

    problem = TASKS["fine_print"].problem("test", 0)
    step = StepView(EVIL, 0.25, False, "perception", Region(0, 0, 256, 128))
    view = ProblemView(
        problem,
        "fine_print/read",
        [CandidateView(EVIL, False, "answer", [step]), CandidateView(None, None, "length", [])],
    )
    path = LabelledPath(
        problem,
        (parse_step(EVIL), parse_step("[answer] 1")),
        (0, 1),
        (StepLabel(1, 2, 2, None, 0.5), StepLabel()),
        False,
    )
    results = {
        "n_problems": 3, "n_candidates": 2, "aggregation": "min", "judge": EVIL,
        "no_answer": {"candidates": 5, "problems": 1},
        "selection": measure.selection(POOLS, "min"), "differences": measure.differences(POOLS, "min"),
        "best_of_n": measure.best_of_n(POOLS, "min"), "by_question_type": measure.by_question_type(POOLS, "min"),
        "steps": measure.steps(POOLS, "min"), "seconds": {"trees": 1.0},
        "labels": {name: {"precision": 1, "recall": 1, "f1": 1, "labelled": 1} for name in ("mc", "judge", "fused")},
    }  # fmt: skip
    assert zoom_boxes(view) == [(0, 0, 50, 25)]
    return render_page(results, [view], tree_view([path]), None)


def test_text_of_models_is_escaped() -> None:
    html = page()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") >= 3


def test_the_page_stands_alone() -> None:
    html = page()
    assert not re.search(r"(?:src|href)=[\"'](?!data:image/)", html)
    assert "@import" not in html
    assert "url(" not in html


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page_and_runs_nothing_of_what_models_wrote(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page())
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [str(BROWSER), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000"]
    url = (tmp_path / "report.html").as_uri()
    shown = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<script" not in shown
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in shown
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", url], capture_output=True, timeout=60, check=True)
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50, "the page is blank"


def test_rewards_have_colours() -> None:
    assert reward_colour(0.0).startswith("hsl(0 ")
    assert reward_colour(1.0).startswith("hsl(120 ")
    assert reward_colour(None) == "hsl(0 0% 88%)"
