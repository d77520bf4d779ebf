"""The claims as a Markdown document and as a self-contained page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from markupsafe import Markup, escape

from tests.perf.claims.table import TOPICS, WORTH, Claim, verdict
from tests.perf.results import Curves, Effect
from vlprm.viewer.charts import accuracy_chart
from vlprm.viewer.page import render_page
from vlprm.viewer.sections import section

Found = Mapping[Claim, Effect | None]

OPENING = """# Claims of the field, measured here

What published work says about step rewards, and what the built-in world shows. `make demo && make claims` measures
every row, continues after a kill, and writes this page from [its records](claims.json). It takes about eight hours on
two cores (*computed* from the hours of its benches). An effect is the difference that the claim predicts to be
positive, with its 95% interval over problems and, where there are several, seeds. With one seed, the interval leaves
out how much training runs differ. The intervals are not corrected for the number of claims: if no effect existed, one
or two of them would still *hold*.

- *holds*: the interval is above 0;
- *does not hold*: the interval is below the smallest effect worth having ({worth});
- *not decided here*: anything else.

A reward model starts from a *stranger*'s weights, which were taught to solve these problems, or from the policy's own
(*self*). The problems are drawn, and the models have a few million parameters: a claim that does not hold here may hold
for a 7B model on photographs, and the reverse. {counts}.
"""
SMALL = 0.05  # points that one decimal would show as none
BY_LABELS = "n, problems with trees"
HEAD = """
## {topic}

| claim | source | reward model | effect | interval | problems | seeds | verdict | command |
|---|---|---|---|---|---|---|---|---|
"""
COUNTED = {
    "holds": ("holds", "hold"),
    "does not hold": ("does not hold", "do not hold"),
    "not decided here": ("is not decided here", "are not decided here"),
    "not measured yet": ("is not measured yet", "are not measured yet"),
}


def document(found: Found) -> str:
    """The Markdown document."""
    worth = ", ".join(f"{value:g} {unit.removesuffix('s') if value == 1 else unit}" for unit, value in WORTH.items())
    tables = []
    for topic, claims in TOPICS.items():
        rows = [_row(claim, found[claim]) for claim in claims if claim in found]
        tables += [HEAD.format(topic=topic), *(f"| {' | '.join(row)} |\n" for row in rows)]
    return OPENING.format(worth=worth, counts=_counts(found)) + "".join(tables)


def _row(claim: Claim, effect: Effect | None) -> list[str]:
    numbers = ["", "", "", ""] if effect is None else [
        f"{shown(effect.value, effect.unit)} {effect.unit}",
        f"{shown(effect.low, effect.unit)} to {shown(effect.high, effect.unit)}",
        f"{effect.problems}", f"{effect.seeds}",
    ]  # fmt: skip
    return [claim.says, claim.source, claim.world, *numbers, verdict(effect), f"`{claim.command}`"]


def shown(value: float, unit: str) -> str:
    if unit != "points":
        return f"{value:+.3f}"
    return f"{value:+.2f}" if abs(value) < SMALL else f"{value:+.1f}"


def _counts(found: Found) -> str:
    counts = Counter(verdict(effect) for effect in found.values())
    said = [f"{counts[name]} {words[counts[name] > 1]}" for name, words in COUNTED.items() if counts[name]]
    return f"Of {len(found)} claims, {', '.join(said)}"


def page(found: Found, label_curves: Mapping[str, Curves]) -> str:
    """The page: one plot per unit, in which each claim has a dot and its interval around the line of no effect; and the
    accuracy by the number of labelled problems, a chart for each way to train."""
    sections = [Markup("<section><p>{}.</p></section>").format(_counts(found))]
    for unit in WORTH:
        known = {claim: effect for claim, effect in found.items() if effect is not None and effect.unit == unit}
        if known:
            sections.append(_plot(unit, known))
    charts = {
        f"labels-{arm.replace(' ', '-')}": accuracy_chart(curves, f"What step labels are worth: {arm}", BY_LABELS)
        for arm, curves in label_curves.items()
    }
    drawn = {name: chart for name, chart in charts.items() if chart is not None}
    sections.append(Markup('<div class="cards">{}</div>').format(section("curves.html", charts=drawn)))
    return render_page("Claims of the field, measured here", sections)


WIDTH, ROW, LEFT = 360, 26, 8  # size of a plot, in its own units


def _plot(unit: str, known: Mapping[Claim, Effect]) -> Markup:
    ends = [end for effect in known.values() for end in (effect.low, effect.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    rows = [_bar(claim, effect, low, (WIDTH - 2 * LEFT) / ((high - low) or 1.0)) for claim, effect in known.items()]
    return Markup("<section><h2>Effects in {}</h2><div class='table'><table>{}</table></div></section>").format(
        escape(unit), Markup("").join(rows)
    )


def _bar(claim: Claim, effect: Effect, low: float, scale: float) -> Markup:
    """A table row: the claim, its effect as a drawing, the numbers, the verdict."""
    zero, left, dot, right = (LEFT + scale * (x - low) for x in (0.0, effect.low, effect.value, effect.high))
    drawing = Markup(
        '<svg class="effect" width="{width}" height="{row}" viewBox="0 0 {width} {row}" role="img" aria-label="{text}">'
        '<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{row}"/>'
        '<line class="stroke" stroke="currentColor" stroke-width="2" x1="{left:.1f}" x2="{right:.1f}" y1="{half}" '
        'y2="{half}"/>'
        '<circle fill="currentColor" cx="{dot:.1f}" cy="{half}" r="4"/></svg>'
    ).format(width=WIDTH, row=ROW, half=ROW // 2, zero=zero, left=left, right=right, dot=dot, text=_numbers(effect))
    return Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>").format(
        f"{claim.says} ({claim.world})" if claim.world else claim.says, drawing, _numbers(effect), verdict(effect)
    )


def _numbers(effect: Effect) -> str:
    low, value, high = (shown(x, effect.unit) for x in (effect.low, effect.value, effect.high))
    return f"{value} ({low} to {high})"
