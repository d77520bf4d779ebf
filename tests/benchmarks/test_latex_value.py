"""A LaTeX expression has the value of MathVision's official scorer, and no expression is slow."""

from __future__ import annotations

import time

import pytest

from vlprm.benchmarks.mathvision_latex import latex_value

# Each was read by latex2sympy2 1.9.1 and evaluated as the official scorer does, to two decimals.
VALUES = {
    "1,187.50": 1187.5, "$12.5$": 12.5, "20\\%": 0.2, "-2^2": -4, "2^{3}4": 32, "2^34": 2**34, "2^3^2": 64,
    "\\frac{1}{2}\\pi": 1.57, "1/2\\pi": 0.16, "6/3*2": 4, "1:2": 0.5, "(2)3": 6, "[2]": 2, "\\{2\\}": 2,
    "3\\frac{1}{2}": 1.5, "1 000": 0, "111 111": 12321, "1,0000": 0, "2--2": 4, "2\\cdot-3": -6, "+2": 2,
    "\\sqrt[3]{8}": 2, "2\\sqrt{3}-\\pi": 0.32, "4!": 24, "3!!": 720, "9!/(4!\\cdot2^4)": 945, "\\binom{5}{2}": 10,
    "\\sin30": -0.99, "\\sin^{-1}{1}": 1.57, "\\sin^2{1}": 0.71, "2\\cos{\\frac{1}{2}}": 1.76, "\\tan3\\sqrt{2}": -0.2,
    "\\log10": 1, "\\log_{2}{8}": 3, "\\pi e^2": 23.21, "\\lfloor2.5\\rfloor": 2, "\\left(1+\\frac{1}{2}\\right)": 1.5,
    # Text after the expression that cannot continue it is ignored.
    "2\\sqrt{10}}.theansweris:2\\sqrt{10": 6.32, "180.therefore,\\angleaoc": 180, "0.00101...≈.1%": 0, "1)": 1,
    "5_2": 5, "2triangles": 2, "625\\rightarrow626": 625,
}  # fmt: skip
NO_VALUES = [
    "", "5cm", "x", "2\\text{cm}", "e", "60%", "60^\\circ", "2π", "5²", "5°", "\\frac12", "\\sqrt2", "2^-1",
    "2^(3)", "1,2", "(1,2)", "1;2", "(1", "{1", "\\left(1)", "2+", "1/0", "0^{-1}", "\\sqrt{-4}", "(-8)^{1/3}", "\\ln2",
    "|3|", "5=5", "\\lceil2.5\\rceil", "()", "__import__('os')", "\\boxed{5}",
]  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_values(text: str) -> None:
    value = latex_value(text)
    assert value is not None
    assert round(value, 2) == VALUES[text]


@pytest.mark.parametrize("text", NO_VALUES)
def test_no_values(text: str) -> None:
    assert latex_value(text) is None


def test_no_text_takes_long_or_much() -> None:
    started = time.process_time()
    hard = [
        "10^{10^{10}}", "9^9^9^9^9^9^9", "10^{10}^{10}!", "99999!", "2^{99999999}", "2^{2^{2^{2^{2^2}}}}",
        "(" * 100_000, "{" * 100_000 + "1" + "}" * 100_000, "\\frac{" * 50_000, "\\sqrt{" * 50_000 + "2",
        "-" * 100_000 + "1x", "\\binom{99999}{5}", "1/" * 50_000 + "0", "\\sin" * 50_000 + "1", "e^{" * 50_000,
        "9^{6000}" * 10_000, "1000!" * 10_000,
    ]  # fmt: skip
    for text in hard:
        assert latex_value(text) is None, text[:40]
    assert latex_value("5" + "}" * 100_000) == 5
    assert latex_value("1+" * 50_000 + "1") == 50_001
    assert time.process_time() - started < 3
