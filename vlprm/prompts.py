"""Every prompt template, with an id and a version. A checkpoint names the one it was trained with."""

from __future__ import annotations

from vlprm.schema import Problem

TEMPLATES: dict[str, str] = {
    # For the built-in models, which were taught the step format and need not be told.
    "plain@1": "{question}",
    # For any instruction-tuned policy.
    "tagged_steps@1": (
        "{question}\n\nSolve this step by step. Write each step as one paragraph that opens with its tag: "
        "[perception] for what the image shows, [reasoning] for what you derive, "
        '[zoom] {{"bbox_2d": [x0, y0, x1, y1], "label": "..."}} to see a region enlarged, '
        "and [answer] with the final answer alone as the last step. Leave a blank line between steps."
    ),
}


def user_text(template_id: str, problem: Problem) -> str:
    """The text of the user's turn. ValueError on a template that is not there."""
    if template_id not in TEMPLATES:
        raise ValueError(f"unknown prompt template {template_id!r}; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[template_id].format(question=problem.question)
