r"""Formulas: the TeX that a page carries comes out exactly, in its sentence; without TeX no value changes.

Covers: mathml.py
"""

# ruff: noqa: E501 (mark-up as programs write it)
from __future__ import annotations

import html
import random

import pytest

from curation.extract import formulas, mathml
from curation.extract.extract import extract

PROSE = (
    "The miller measured the head of water above the wheel and wrote every figure down, with great care, in the book. "
)
FORMULAS = (
    r"E=mc^{2}", r"1.33\times 10^{-4}", r"\alpha\leq 1", r"\frac{a}{b}<\sqrt{2}", r"x_{1}^{2}+y_{i,j}>0",
    r"\int_0^T P\,dt", r"\sum_{n=1}^{\infty}\frac{1}{n^2}=\frac{\pi^2}{6}", r"\text{if } x \& y", r"f: X\to Y",
    r"\begin{pmatrix}a & b\\ c & d\end{pmatrix}", r"\mathbb{R}^{n\times n}", r"\{x \mid x<1\}", r"5\%", r"\rho g Q h",
)  # fmt: skip
MATHML = "<mrow><mi>x</mi><mo>=</mo><mn>2</mn></mrow>"


def mathjax2(tex: str, display: bool) -> str:
    mode = "; mode=display" if display else ""
    outer = '<div class="MathJax_Display">{}</div>' if display else "{}"
    rendered = '<span class="MathJax" id="MathJax-Element-1-Frame"><nobr><span class="math">x</span></nobr></span>'
    preview = '<span class="MathJax_Preview">[math]</span>'
    return f'{preview}{outer.format(rendered)}<script type="math/tex{mode}">{tex}</script>'


def mathjax3(tex: str, display: bool) -> str:
    shown = ' display="true"' if display else ""
    annotation = f'<annotation encoding="application/x-tex">{html.escape(tex)}</annotation>'
    assistive = f"<mjx-assistive-mml><math><semantics>{MATHML}{annotation}</semantics></math></mjx-assistive-mml>"
    return f'<mjx-container class="MathJax" jax="CHTML"{shown}><mjx-math aria-hidden="true"><mjx-mi></mjx-mi></mjx-math>{assistive}</mjx-container>'


def katex(tex: str, display: bool) -> str:
    annotation = f'<annotation encoding="application/x-tex">{html.escape(tex)}</annotation>'
    math = f'<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics>{MATHML}{annotation}</semantics></math>'
    found = f'<span class="katex"><span class="katex-mathml">{math}</span><span class="katex-html" aria-hidden="true"><span class="base">x=2</span></span></span>'
    return f'<span class="katex-display">{found}</span>' if display else found


def wikipedia(tex: str, display: bool) -> str:
    styled, shape = html.escape(f"{{\\displaystyle {tex}}}"), "display" if display else "inline"
    math = f'<math display="{"block" if display else "inline"}" alttext="{styled}"><semantics>{MATHML}<annotation encoding="application/x-tex">{styled}</annotation></semantics></math>'
    image = f'<img src="x.svg" class="mwe-math-fallback-image-{shape}" aria-hidden="true" alt="{styled}">'
    return f'<span class="mwe-math-element"><span class="mwe-math-mathml-{shape} mwe-math-mathml-a11y" style="display: none;">{math}</span>{image}</span>'


def attribute(markup: str) -> object:
    return lambda tex, display: markup.format(html.escape(tex))


ENCODINGS = {  # name -> a function of the TeX and whether it is displayed
    "MathML, annotation": lambda tex, display: (
        f'<math display="{"block" if display else "inline"}"><semantics>{MATHML}<annotation '
        f'encoding="application/x-tex">{html.escape(tex)}</annotation></semantics></math>'),
    "ar5iv, alttext": lambda tex, display: (
        f'<math class="ltx_Math" alttext="{html.escape(tex)}" display="{"block" if display else "inline"}">{MATHML}</math>'),
    "KaTeX": katex,
    "MathJax 2": mathjax2,
    "MathJax 3": mathjax3,
    "script": lambda tex, display: f'<script type="math/tex{"; mode=display" if display else ""}">{tex}</script>',
    "Wikipedia": wikipedia,
    "Wikipedia, image alone": lambda tex, display: (
        f'<img class="mwe-math-fallback-image-{"display" if display else "inline"}" src=x alt="{html.escape(tex)}">'),
    "WordPress image": attribute('<img class="latex" src="https://s0.wp.com/latex.php?latex=x" alt="{}">'),
    "data-tex": attribute('<span class="ztext-math" data-eeimg="1" data-tex="{}"><span>rendered</span></span>'),
    "Quill": attribute('<span class="ql-formula" data-value="{}"><span class="katex">rendered</span></span>'),
    "Stack Exchange": lambda tex, display: (
        f'<span class="math-container">{"$$" if display else "$"}{html.escape(tex)}{"$$" if display else "$"}</span>'),
    "Sphinx": lambda tex, display: (
        f'<span class="math notranslate">\\{"[" if display else "("}{html.escape(tex)}\\{"]" if display else ")"}</span>'),
    "GitHub": lambda tex, display: (
        f'<math-renderer class="js-inline-math">{"$$" if display else "$"}{html.escape(tex)}{"$$" if display else "$"}</math-renderer>'),
}  # fmt: skip
ALWAYS_INLINE = ("WordPress image", "data-tex", "Quill")


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_the_tex_of_a_page_is_kept_in_its_sentence(name: str) -> None:
    for tex in FORMULAS:
        for display in (False, True):
            written = ENCODINGS[name](tex, display)  # type: ignore[operator]
            sign = "$$" if display and name not in ALWAYS_INLINE else "$"
            page = f"<html><body><article><p>{PROSE}So {written} holds.</p><p>{PROSE}</p></article></body></html>"
            # MathJax 2 displays in a div, which ends the paragraph before it
            before = "" if display and name == "MathJax 2" else "So "
            assert f"{before}{sign}{tex}{sign} holds." in extract(page).text, (tex, display)


def test_no_number_loses_its_exponent() -> None:
    """Two hundred planted: powers of ten, units and indices, with and without other elements inside."""
    choose = random.Random(3)
    for _ in range(200):
        base = choose.choice(["10", "2", "1.33×10", "5 m", "12 km", "9.8 m s", "(a+b)", "7 cm"])
        power = choose.choice(["6", "-4", "−12", "2", "3", "+5", "23", "-1"])
        power = choose.choice(["{}", "<b>{}</b>", "<span>{}</span>"]).format(power)
        plain = power.replace("<b>", "").replace("</b>", "").replace("<span>", "").replace("</span>", "")
        text = extract(f"<body><p>{PROSE}About {base}<sup>{power}</sup> of it. {PROSE}</p>").text
        assert f"About {base}^{plain} of it." in text


@pytest.mark.parametrize(
    ("markup", "right"),
    [
        ("the 5<sup>th</sup> of May", "the 5th of May"),
        ("the flood<sup>1</sup> came", "the flood1 came"),
        ('the flood<sup><a href="#n">[1]</a></sup> came', "the flood[1] came"),
        ("H<sub>2</sub>O and CO<sub>2</sub> are", "H2O and CO2 are"),
        ("in log<sub>2</sub>8 steps", "in log_28 steps"),
        ("or 101<sub>2</sub> in all", "or 101_2 in all"),
        ("10<sup>n+1</sup> sacks", "10^(n+1) sacks"),
    ],
)
def test_signs_of_powers_and_indices(markup: str, right: str) -> None:
    assert right in extract(f"<body><p>{PROSE}{markup}, he wrote. {PROSE}</p>").text


@pytest.mark.parametrize(
    ("markup", "right"),
    [
        ("<mi>P</mi><mo>=</mo><mfrac><mi>a</mi><mi>b</mi></mfrac>", r"P=\frac{a}{b}"),
        ("<msup><mn>10</mn><mrow><mo>−</mo><mn>4</mn></mrow></msup>", "10^{-4}"),
        ("<mn>2</mn><mo>\u2062</mo><mn>3</mn>", "2 3"),
        ("<mn>1</mn><mn>2</mn>", "1 2"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        ("<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>", "x_{i}^{2}"),
        ("<munderover><mo>∑</mo><mn>0</mn><mi>n</mi></munderover>", "∑_{0}^{n}"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a,b)"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr></mtable>", r"\begin{matrix}1 & 2\end{matrix}"),
        ("<msup><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></msup>", "{a+b}^{2}"),
        ("<mi>sin</mi><mi>x</mi>", "sin x"),
        ("<mn>3</mn><mi>x</mi>", "3x"),
        ("<mmultiscripts><mi>C</mi><none/><none/><mprescripts/><mn>6</mn><mn>14</mn></mmultiscripts>", "{}_{6}^{14}C"),
    ],
)
def test_mathml_without_tex(markup: str, right: str) -> None:
    assert mathml.to_tex(f"<math>{markup}</math>") == right
    assert f"So ${right}$ holds." in extract(f"<body><p>{PROSE}So <math>{markup}</math> holds.</p>").text


@pytest.mark.parametrize("markup", ["<math>" + "<mrow>" * 5000, "<math><mi>x", "<math><mfrac><mi>a</mi></mfrac></math>",
                                    "<math></math>", "<math>" * 500, '<span class="katex">' * 500])  # fmt: skip
def test_odd_formulas(markup: str) -> None:
    assert extract(f"<body><p>{PROSE}{markup}").problem == ""


def test_elements_unknown_to_html_are_inline() -> None:
    page = f"<body><p>{PROSE}The <x-tooltip>wheel</x-tooltip> <g-emoji>!</g-emoji> turned <relative-time>today</relative-time>.</p>"
    assert extract(page).text.endswith("The wheel ! turned today.")


def test_dollar_signs_and_code_are_left_alone() -> None:
    page = rf"<head><script src=mathjax.js></script></head><body><p>{PROSE}It cost $5 or \(x\).</p><pre>re.compile('\(a\)')</pre>"
    assert extract(page).text.endswith("It cost $5 or $x$.\n\nre.compile('\\(a\\)')")


def test_pages_without_formulas_are_not_searched_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted: the search for formulas took 8 of 100 of the time of pages that have none."""
    searched: list[str] = []
    monkeypatch.setattr(formulas, "write_inline", lambda source: searched.append(source) or source)
    for tag in ('<div class="plaintext rich-text context">', '<img alt="a" src="/texture.png">', "<script>1</script>",
                '<p class="pretext">Mathematics and LaTeX: $5'):  # fmt: skip
        extract(f"<body><main><p>{PROSE}</p>{tag}<p>{PROSE}</p>")
    assert not searched
    for tag in ("<math><mi>x</mi></math>", '<span class="katex">x</span>', '<img class="tex" alt="x" src="x.png">',
                '<img alt="x" src="/cgi-bin/mathtex.cgi?x">', '<script type="math/tex">x</script>', "10<sup>6</sup>",
                '<span data-tex="x">x</span>', '<img class="ql-img-inline-formula" alt="x">'):  # fmt: skip
        extract(f"<body><main><p>{PROSE}{tag}</p>")
    assert len(searched) == 8
