"""Wikitext to plain text: each construct of the syntax, what editors get wrong, and hostile nesting.

Covers: extension_tags.py, tables.py, templates.py, mending.py, plain_lines.py, scripts.py
"""

from __future__ import annotations

import pytest

from curation.sources.wikitext import wikitext
from curation.sources.wikitext.wikitext import Site, to_text

CASES = {
    "quotes": ("'''Bold''' and ''italic'' and '''''both'''''", "Bold and italic and both"),
    "links": ("[[Mill]]s, [[Mill|a mill]], [[:Category:Mills]], [[Mill (x)|]]",
        "Mills, a mill, Category:Mills, Mill (x)"),
    "links to other sites": ("[http://x.org/a?b A mill] and [http://x.org] or http://y.a", "A mill and or http://y.a"),
    "a file with links in its caption": ("A[[File:m.jpg|thumb|200px|A [[mill]] in [[x|y]]]] B", "A B"),
    "a file by a name that is not known": ("A [[Grist:m|thumb|left|caption]] B [[Obraz:m.png]] C", "A B C"),
    "other languages": ("Text\n[[de:Mühle]]\n[[simple:Mill]] [[zh-min-nan:Mill]]", "Text"),
    "headings": ("Lead\n==First==\nText\n=== Second ===\nMore", "Lead\n\nFirst\n\nText\n\nSecond\n\nMore"),
    "a section of references alone": ("Lead\n==References==\n{{reflist}}\n<references/>\n==See also==\n* [[Mill]]",
                                      "Lead\n\nSee also\n\n- Mill"),
    "lists": ("Text:\n* one\n** two\n*: more\n# first\n# second\n## inner\n# third\n: indented\n; term : text",
              "Text:\n\n- one\n  - two\n  more\n1. first\n2. second\n  1. inner\n3. third\n\nindented\nterm : text"),
    "references": ('A<ref>{{cite|x}} [[y]]</ref> B<ref name="n"/> C<ref name=n />.', "A B C."),
    "a reference that is not closed": ("A<ref>note B\n\nC<ref>x</ref> D", "Anote B\n\nC D"),
    "comments": ("A<!-- x -->B\n<!-- whole line -->\nC <!-- not closed", "AB\nC"),
    "formulas": ('So <math>a_{{1}} | [[b]]</math> and <math display="block">x\n y</math>, <ce>H2O</ce>',
                 r"So $a_{{1}} | [[b]]$ and $$x y$$, $\ce{H2O}$"),
    "nowiki": ("<nowiki>[[a]] {{b}} '''c'''</nowiki> d<nowiki/>'s &lt;tag&gt;", "[[a]] {{b}} '''c''' d's <tag>"),
    "code": ("A\n<syntaxhighlight lang='c'>\nif (a[0] || b) {{ c; }}\n  d\n</syntaxhighlight>\nB",
             "A\n\nif (a[0] || b) {{ c; }}\n  d\n\nB"),
    "a table": ('{| class="x"\n|+ style="y" | Mills\n!A !! B\n|-\n| 1 || x=z|[[t|2]]\n|-\n| a<br>b\n| {{flag|X}}\n|}',
                "Mills\n\nA | B\n1 | 2\na b | X"),
    "spans": ('{|\n| rowspan="2" | a || b || c\n|-\n| colspan=2 | d\n|-\n| e || f || g\n|}',
        "a | b | c\n | d |\ne | f | g"),
    "a table in a table": ("{|\n| \n{|\n| a || b\n|}\n| \n{|\n| c || d\n|}\n|}", "a | b\n\nc | d"),
    "a list in a cell": ("{|\n|\n* one\n* two\n| # 3\n|}", "one two | # 3"),
    "a row that looks like an item": ("{|\n! # !! Name\n|-\n| * || x\n|}", "# | Name\n* | x"),
    "a table that is not closed": ("{|\n| a || b\n|-\n| c || d", "a | b\nc | d"),
    "brackets around what is left out": ("A ({{x}}; {{y}}) b ({{x}}; 1950) c (1950, {{x}}) d {{x}}, main() e",
                                         "A b (1950) c (1950) d, main() e"),
    "an item without its subject": ("* {{cite book|x}}, volume 3\n* [[Mill]]\n* {{cite book|y}}", "- Mill"),
    "quantities": ("{{convert|1300|mi|km}}, {{convert|5|to|10|sqmi|km2}}, {{cvt|6|ft|2|in}}, {{cvt|90|°F}}, "
                   "{{convert|5|mi|km|0|adj=on}}, {{val|1.5|0.2|e=6|u=kg}}, {{frac|1|2}}, {{frac|3|1|2}}, {{nts|12}}",
                   "1,300 mi, 5 to 10 sq mi, 6 ft 2 in, 90 °F, 5 mi, 1.5±0.2×10^6 kg, 1/2, 3 1/2, 12"),
    "dates": ("{{birth date|1809|2|12}}, {{death date and age|mf=yes|1865|4|15|1809|2|12}}, {{start date|1929}}, "
              "{{as of|2010|5}}, {{circa|1500}}, {{dts|3 May 2010}}",
              "12 February 1809, April 15, 1865, 1929, As of May 2010, c. 1500, 3 May 2010"),
    "languages": ("{{lang|de|Mühle}}, {{lang-ru|мельница}}, {{transl|ru|melnitsa}}, {{nihongo|mill|臼|usu}}, "
                  "{{IPA|/mɪl/}}, {{IPAc-en|lang|m|ɪ|l}}, {{respell|MIL|ər}}",
                  "Mühle, мельница, melnitsa, mill (臼, usu), /mɪl/, /mɪl/, MIL-ər"),
    "quote": ("A\n{{quote|text=Grind = all {{small|day}}.|author=[[Miller|M.]]}}\nB",
        "A\n\nGrind = all day.\n— M.\n\nB"),
    "signs": ("a{{!}}b {{=}} c{{snd}}d{{nbsp}}e {{'s}}", "a|b = c – d e 's"),
    "numbers of arguments": ("{{nowrap|1=a = b}} {{quote|2=by|1=x}}", "a = b\n\nx\n— by"),
    "a template in a template": ("{{small|{{nowrap|{{lang|de|{{small|x}}}}}}}}y", "xy"),
    "unknown": ("A {{unknown|{{lang|de|x}}|[[a|b]]}} B {{Infobox\n| a = b\n|}} C", "A B C"),
    "functions": ("{{formatnum:1000}} {{#if:x|y|z}} {{lc:ABC}}", "1000 ABC"),
    "parameters": ("{{{name|default}}} {{{x}}}", "default"),
    "not closed": ("A {{cite|b\nText after it. [[link|label and '''more", "A Text after it. label and more"),
    "closed too often": ("A }} B ]] C |} D", "A }} B ]] C |} D"),
    "brackets that are text": (
        "{{math|{1, 2, 3}}} a[b[1]] [[1, 2], [3, 4]] {{{nowrap|a}}, b} {{small|x[y[0]]}} {{nowrap|{{small|{a}}}}}",
        "{1, 2, 3} a[b[1]] [[1, 2], [3, 4]] {a, b} x[y[0]] {a}"),
    "a link not closed in a template": ("A {{small|[[b|c}} D", "A c D"),
    "tags": ("A<br/>B <span style='x'>C</span> <div>D</div>H<sub>2</sub>O 10<sup>6</sup> 4<sup>th</sup> a < b",
             "A\nB C\n\nD\n\nH2O 10^6 4th a < b"),
    "exponents": (
        "10<sup>&minus;19</sup> 10<sup> 6</sup> &pi;<sup>2</sup> ''x''<sup>2</sup> <i>x</i><sup>n+1</sup> "
        "e<sup>&minus;''kt''</sup> (1+x)<sup>n</sup> 2<sup>2<sup>3</sup></sup> f<sup>(n)</sup> m<sup>3&frasl;2</sup> "
        "10<sup>6</sup>5 10<sup><math>n</math></sup>",
        "10^−19 10^6 π^2 x^2 x^(n+1) e^(−kt) (1+x)^n 2^(2^3) f^(n) m^(3⁄2) 10^(6)5 10^($n$)"),
    "indices": ("x<sub>n+1</sub> x<sub>&minus;1</sub> 101<sub>2</sub> log<sub>10</sub>5 C<sub>6</sub>H<sub>12</sub>",
                "x_(n+1) x_−1 101_2 log_(10)5 C6H12"),
    "indices with exponents": ("x<sub>1</sub><sup>2</sup> SO<sub>4</sub><sup>2&minus;</sup> Ca<sup>2+</sup> "
                               "<sup>235</sup><sub>92</sub>U <sup>14</sup>C", "x1^2 SO4^2− Ca2+ 235_92U 14C"),
    "raised text": ("1<sup>er</sup> n<sup>o</sup> D<sup>r</sup> M<sup>lle</sup> mill<sup>TM</sup> mill<sup>[1]</sup> "
                    "1990<sup>[2]</sup> 7–6<sup>(7–5)</sup> mill<sup>see-note</sup>",
                    "1er no Dr Mlle millTM mill[1] 1990[2] 7–6(7–5) millsee-note"),
    "scripts that are no tags": ("10&lt;sup&gt;6&lt;/sup&gt; 10<nowiki><sup>6</sup></nowiki> a<sup>6\n10<sup>7</sup>",
                                 "10<sup>6</sup> 10<sup>6</sup> a6\n10^7"),
    "templates of scripts": (
        "10{{sup|&minus;6}} 10{{sub|2}} {{10^|6}} {{pow|10|n+1}} 3{{e|&minus;6}} {{chem|SO|4|2-}} {{chem|H|2|O}}",
        "10^−6 10_2 10^6 10^(n+1) 3×10^−6 SO4^2- H2O"),
    "fractions": ("2{{frac|1|2}} {{frac|3|1|4}} {{frac|3}} {{sfrac|a+b|c}} 2<sup>1</sup>&frasl;<sub>2</sub>",
                  "2 1/2 3 1/4 1/3 (a+b)/c 2 1⁄2"),
    "values": (
        "{{val|1.2|0.3|0.4}}, {{val|1.2|+0.3|-0.4|e=6|u=kg}}, {{val|1.23|(4)}}, {{val|100|-|200|u=kg}}, "
        "{{val|5|ul=km|upl=s}}, {{val|e=3}}, {{val|p=~|7}}, {{unité|1.5|e=6|km}}, {{unité|3|m|s|-2}}, {{gaps|9|192}}",
        "1.2 +0.3 −0.4, (1.2 +0.3 −0.4)×10^6 kg, 1.23(4), 100–200 kg, 5 km/s, 10^3, ~7, 1.5×10^6 km, 3 m s^-2, 9192"),
    "ranges of dates": ("{{circa|1066|1087}}, {{fl.|1200|1250}}, {{reign|1066|1087}}, {{circa}} 1500",
                        "c. 1066 – c. 1087, fl. 1200–1250, r. 1066–1087, c. 1500"),
    "words of the software": ("__NOTOC__ __БЕЗСЪДЪРЖАНИЕ__ a __init__ b", "a __init__ b"),
    "entities": ("a&nbsp;b &amp;lt; &#8212; &eacute;", "a b &lt; — é"),
    "control characters": ("a\x7f1\x7f\x02b\x03c\r\n* d\x04", "a1bc\n\n- d"),
    "gallery and pictures": ("A\n<gallery>\nFile:x.jpg|y\n</gallery>\n<timeline>z</timeline>B", "A\n\nB"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_markup_becomes_text(name: str) -> None:
    source, text = CASES[name]
    assert to_text(source).text == text


def test_categories_and_files_by_the_names_of_a_wiki() -> None:
    site = Site(frozenset(("kategorie", "category")), frozenset(("datei",)))
    page = to_text("A [[Kategorie:Mühlen| ]][[category:Old_mills|key]] [[Datei:x|y]]B [[Kategorie:Mühlen]]", site)
    assert page.text == "A B" and page.categories == ["Mühlen", "Old mills"]


def test_fields_of_an_infobox() -> None:
    source = "{{Infobox mill\n| name = [[Old mill|The mill]]<ref>x</ref>\n| built = {{circa|1500}}\n| lost =\n}}\nText"
    assert to_text(source, infobox=True).infobox == {"name": "The mill", "built": "c. 1500"}
    assert to_text(source).infobox == {} and to_text(source).text == "Text"


HOSTILE = {
    "templates": "{{a|" * 10_000, "closed templates": "{{a|" * 6_000 + "}}" * 6_000,
        "braces": "{" * 33_000 + "}" * 32_999,
    "links": "[[a|" * 10_000, "closed links": "[[a|b {" * 6_000 + "]]" * 6_000, "tables": "\n{|\n|" * 6_000,
    "references": "<ref>" * 10_000, "references far apart": "<ref>a\n\n" * 6_000 + "</ref>",
        "comments": "<!--" * 10_000,
    "tags": "<ref name=" * 6_000, "math": "<math>" * 10_000 + "</ref>", "removed": "long " * 6000 + "({{x}}, " * 6000,
    "many removed": "({{x}} ; " * 6000 + ")" * 6000, "quotes": "'" * 33_000, "stars": "*" * 33_000 + "a",
    "equals": "=" * 33_000 + "\n", "spaces": "a " + " " * 33_000 + "\n" + " \n" * 16_000, "urls": "[http://" * 6_000,
    "pipes": "{|\n" + "||" * 16_000, "mixed": "[[{{" * 6_000 + "}}]]" * 6_000, "words": "__" * 16_000 + "a" * 16_000,
    "a link's end for each of many templates": "[[a|" + "{{b|" * 6_000 + "]]" * 6_000,
    "pipes in a cell": "{|\n|x" + "|y" * 33_000, "pipes below a line": "{|\n|x\nz" + "|y" * 33_000,
    "brackets at the end": "a " * 33_000 + "(" * 33_000 + "{{x}})" * 33_000,
    "scripts in scripts": "a<sup>" * 6_000 + "1" + "</sup>" * 6_000,
    "spans": "{|\n" + '|-\n| rowspan=100 colspan=100 | x\n' * 300, "script": "a<sub>" * 6_000,
        "arguments": "{{a" + "|b=" * 16_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_nesting_takes_linear_work(name: str) -> None:
    """Each would take minutes where work is quadratic."""
    text = to_text(HOSTILE[name]).text
    assert len(text) < 10 * len(HOSTILE[name]) and "\x02" not in text and "\x03" not in text


NESTED = {
    "templates that are not closed": "{{a\nbbbbbbbb", "links that are not closed": "[[a|b {", "tables": "\n{|\n|x",
    "templates": "{{small|x", "links": "[[a|b {", "both": "{{small|[[a|b {",
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_deep_nesting_joins_each_text_a_limited_number_of_times(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deeper than MediaWiki's own limit is taken for never closed. Counts the characters that are handed on."""
    add, done = wikitext._Frame.add, 0

    def counted(frame: wikitext._Frame, text: str) -> None:
        nonlocal done
        done += len(text)
        add(frame, text)

    monkeypatch.setattr(wikitext._Frame, "add", counted)
    close = {"templates": "}}", "links": "]]", "both": "]]}}"}.get(name, "")
    work = []
    for count in (1000, 2000, 4000):
        done = 0
        to_text(NESTED[name] * count + close * count)
        work.append(done)
    assert work[2] < 2.2 * work[1] < 5 * work[0]


def test_nesting_within_the_limit_is_resolved() -> None:
    assert to_text("{{small|x" * 90 + "}}" * 90).text == "x" * 90
    assert to_text("{{small|x" * 90 + "[[a|" + "y" + "]]" + "}}" * 90).text == "x" * 90 + "y"
