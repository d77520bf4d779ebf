"""The synthesizer's report as a section of a page, or a page of its own. Nothing in it is fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from vlprm.metrics import percent


def render_synthesis(results: dict[str, Any]) -> str:
    """The HTML of `synthesis.json`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]), trim_blocks=True
    )
    environment.filters |= {"percent": percent}
    return environment.get_template("synthesis.html").render(synthesis=results)
