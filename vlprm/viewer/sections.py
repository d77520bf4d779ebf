"""The sections of a page: the results of a run, and how its labels were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from vlprm.metrics import percent, points
from vlprm.viewer import names
from vlprm.viewer.charts import Chart, accuracy_chart, calibration_chart, loss_chart, series_chart
from vlprm.viewer.views import visible

TEMPLATES = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Headline:
    """The result in one line, the sentence that explains it, and how the interval judges it: `good`, `bad`, `open`."""

    question: str
    verdict: str
    sentence: str
    judged: str


def results_section(results: dict[str, Any]) -> Markup:
    """The section of `eval.report`'s results."""
    return section(
        "results.html",
        results=results,
        headline=headline_of(results),
        charts=charts_of(results),
        measures=measures_of(results.get("steps", {}), names.MEASURES),
        held_out=measures_of(results.get("training", {}).get("last", {}), names.HELD_OUT),
        seconds={names.STAGES.get(stage, names.words(stage)): duration(s) for stage, s in results["seconds"].items()},
    )


def synthesis_section(synthesis: dict[str, Any]) -> Markup:
    """The section of `data_synth.report`'s results."""
    return section("synthesis.html", synthesis=synthesis)


def policy_section(rounds: Sequence[Mapping[str, Any]]) -> Markup:
    """The section of the rounds of `train.grpo`: the curves of its monitors, and its last numbers."""
    return section("policy.html", last=rounds[-1] if rounds else {}, charts=policy_charts(rounds))


def policy_charts(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """The curves of a run by name, as far as it has the measures."""
    found = {
        name: series_chart(
            title, ("round", "value"),
            [
                (names.ROUND_MEASURES[key], look, [(line["round"], line[key]) for line in rounds if key in line])
                for look, key in zip(("reward", "vote", "oracle"), keys, strict=False)
            ],
            "round",
        )
        for name, (title, keys) in names.ROUND_CHARTS.items()
    }  # fmt: skip
    return {name: chart for name, chart in found.items() if chart is not None}


def headline_of(results: dict[str, Any]) -> Headline | None:
    """Whether the reward model chooses better answers than a random choice; without one, how many answers of the best
    row are right. None without any row."""
    rows, best = results["selection"], f"prm_{results['aggregation']}"
    if "differences" in results:
        return _compared(results, rows[best], results["differences"][f"{best} - random"])
    known = {name: row for name, row in rows.items() if name != "oracle"}
    if not known:
        return None
    name = max(known, key=lambda name: float(known[name]["accuracy"]))
    row = known[name]
    return Headline(
        "How many answers are right?",
        f"{percent(row['accuracy'])}% by {names.selector_name(name)}",
        f"{sentence(names.selector_name(name))} solves {percent(row['accuracy'])}% of {results['n_problems']:,}"
        f" problems (95% interval {interval(row)}).",
        "open",
    )


def _compared(results: dict[str, Any], best: dict[str, Any], difference: dict[str, Any]) -> Headline:
    low, high = difference["ci"]
    gain = signed(difference["accuracy"])
    judged = "good" if low > 0 else "bad" if high < 0 else "open"
    verdict = {"good": f"Yes: {gain} points", "bad": f"No: {gain} points", "open": f"Not shown: {gain} points"}
    ours, random = sentence(names.selector_name(f"prm_{results['aggregation']}")), results["selection"]["random"]
    return Headline(
        "Does the reward model choose better answers?",
        verdict[judged],
        f"{ours} solves {percent(best['accuracy'])}% of {results['n_problems']:,} problems; a random"
        f" candidate solves {percent(random['accuracy'])}%. The 95% interval of the difference is"
        f" {signed(low)} to {signed(high)} points.",
        judged,
    )


def charts_of(results: dict[str, Any]) -> dict[str, Chart]:
    """The charts that the results have data for, by name."""
    training = results.get("training", {})
    found = {
        "curve": accuracy_chart(results.get("curves", {})),
        "loss": loss_chart(training),
        "calibration": calibration_chart(results.get("calibration", ()), "steps of the evaluation"),
        "held-out-calibration": calibration_chart(training.get("reliability", ()), "held-out steps of training"),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def measures_of(values: dict[str, Any], titles: dict[str, str]) -> dict[str, str]:
    """The values that have a title, under it, in the order of the titles."""
    return {title: number(values[name]) for name, title in titles.items() if values.get(name) is not None}


def interval(row: dict[str, Any]) -> str:
    """The interval of a row, in per cent."""
    return " to ".join(map(percent, row["ci"]))


def signed(share: float) -> str:
    """A difference in points, with its sign."""
    return points(share).replace("-", "\N{MINUS SIGN}")


def number(value: float) -> str:
    """A count with separators of thousands, or a measure to three places."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def short(value: float) -> str:
    """A number to three places that count, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def sentence(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def section(template: str, **values: Any) -> Markup:
    """A template of `page/` with these values."""
    return Markup(environment().get_template(template).render(**values))


@cache
def environment() -> Environment:
    """The environment of the templates: it escapes text and makes invisible characters visible."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    made.filters |= {
        "percent": percent, "number": number, "interval": interval, "short": short,
        "sentence": sentence, "cause": names.cause, "words": names.words, "selector": names.selector_name,
        "difference": names.difference_name,
    }  # fmt: skip
    made.globals |= {"note_of": names.selector_note, "labels_by": names.LABELS}
    return made
