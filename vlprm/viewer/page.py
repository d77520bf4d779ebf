"""A run as one self-contained HTML page: its results, and its problems to filter and open.

    write_atomically(path, render_page("a run", [results_section(results)], problems))

Model text is data: sections escape it, and problems hold it as JSON that the page's script (`page/*.js`) shows as text.
The content security policy blocks other scripts and all fetches.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vlprm.viewer.names import METHOD_NAMES
from vlprm.viewer.pictures import data_url, picture, thumbnail
from vlprm.viewer.sections import environment
from vlprm.viewer.views import Problems, ProblemView, facts, plain

FOLDER = Path(__file__).parent
SCRIPTS = ("data.js", "elements.js", "text.js", "math.js", "problem.js", "tree.js", "list.js", "main.js")
MAX_PROBLEMS = 1_000
MAX_BYTES = 45_000_000  # size of the problems in a page, so that the page stays under 50 MB


def render_page(title: str, sections: Sequence[Markup], problems: Problems | None = None) -> str:
    """The page's HTML. It contains the first problems, as many as MAX_PROBLEMS and MAX_BYTES allow, and says how many
    there are."""
    blocks: list[Markup] = []
    listed: list[str] = []
    size = 0
    for fact, parts in _problem_blocks(problems) if problems else ():
        size += sum(map(len, parts)) + len(fact)
        if size > MAX_BYTES or len(listed) == MAX_PROBLEMS:
            break
        listed.append(fact)
        blocks += parts
    return _page(title, sections, problems, blocks, "[" + ",\n".join(listed) + "]")


def render_served(title: str, sections: Sequence[Markup], problems: Problems) -> str:
    """The same page without its problems, which it requests from the server of `vlprm.viewer.serve`."""
    return _page(title, sections, problems, [], None)


def problem_json(view: ProblemView, images: Sequence[bytes]) -> dict[str, Any]:
    """A problem as the page's script reads it; null for an image that cannot be read."""
    return {**plain(view), "images": [shown and vars(shown) for shown in map(picture, images)]}


def in_script(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _problem_blocks(problems: Problems) -> Iterator[tuple[str, list[Markup]]]:
    """Each problem's facts and data elements. An image is embedded with the first problem that has it."""
    seen: set[str] = set()
    for at in range(len(problems)):
        view, images = problems.view(at), problems.images(at)
        problem = problem_json(view, images)
        blocks = [_data(f"problem-{at}", in_script(problem))]
        for shown, data in zip(problem["images"], images, strict=True):
            if shown and shown["key"] not in seen:
                seen.add(shown["key"])
                blocks.append(_data(f"image-{shown['key']}", in_script(data_url(thumbnail(data)))))
        first = problem["images"][0] if images else None
        yield in_script({**facts(view), "image": first and first["key"]}), blocks


def _data(name: str, text: str) -> Markup:
    return Markup(f'<script type="application/json" id="{name}">{text}</script>\n')


def _page(
    title: str, sections: Sequence[Markup], problems: Problems | None, blocks: Sequence[Markup], listed: str | None
) -> str:
    style = (FOLDER / "page" / "page.css").read_text()
    script = "".join((FOLDER / "page" / name).read_text() for name in SCRIPTS) if problems else ""
    assert "</" not in script, "it would end its script element"
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            problems=len(problems) if problems else 0,
            blocks=blocks,
            names=_data("names", in_script(METHOD_NAMES)),
            listed=None if listed is None else _data("facts", listed),
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script, served=listed is None and problems is not None),
        )
    )


def policy(style: str, script: str, served: bool) -> str:
    """The content security policy: only this style and script and the page's own images; a served page may also fetch
    from its own server."""
    images, asked = ("data: 'self'", "'self'") if served else ("data:", "'none'")
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src {images}; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
