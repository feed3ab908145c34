"""Resolves the templates of wikitext whose text belongs into a sentence: quantities, dates, languages, quotes.

What a template expands to is said by other pages of the wiki, most of them programs, so each that is resolved is named
here; all others are removed. Names are those of the English Wikipedia, which most wikis share for the technical ones.
`convert` gives the quantity that the editor wrote, without the converted one, which would have to be computed.

Parameters: the documentation of each at https://en.wikipedia.org/wiki/Template:NAME.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from curation.sources.wikitext.mending import REMOVED

_MAX_NAME = 300
_MAX_NUMBERED = 30  # a number before `=` up to which an argument is taken as positional
_NAME = re.compile(r"[\w .-]+")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_RANGE = {
    "to": " to ", "-": "–", "–": "–", "and": " and ", "or": " or ", "x": " × ", "by": " by ", "×": " × ", "+/-": " ± ",
    "±": " ± ", "to about": " to about ", "and(-)": " and ", "to(-)": " to ",
}  # fmt: skip
_UNITS = {
    "sqmi": "sq mi", "sqft": "sq ft", "sqyd": "sq yd", "km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²",
    "m3": "m³", "km3": "km³", "cm3": "cm³", "cuft": "cu ft", "cuyd": "cu yd", "cumi": "cu mi", "F": "°F", "C": "°C",
    "e6acre": "million acres", "e6mi": "million mi", "e6km": "million km", "e9km": "billion km", "kg/m3": "kg/m³",
    "impgal": "imp gal", "USgal": "US gal", "usgal": "US gal", "lbf": "lbf", "foot": "ft", "inch": "in", "mph": "mph",
    "PD/sqmi": "/sq mi", "PD/km2": "/km²", "/sqmi": "/sq mi", "/km2": "/km²", "kn": "kn", "deg": "°", "m/s2": "m/s²",
}  # fmt: skip


class Arguments:
    """The arguments of a template: positional ones by number, named ones by name."""

    __slots__ = ("named", "positional")

    def __init__(self, arguments: Sequence[str]) -> None:
        self.positional: list[str] = []
        self.named: dict[str, str] = {}
        for argument in arguments:
            name, equals, value = argument.partition("=")
            name = name.strip()
            if not equals or (not _NAME.fullmatch(name) and name):
                self.positional.append(argument.strip())
            elif len(name) < 3 and name.isdecimal() and 0 < int(name) < _MAX_NUMBERED:
                self.positional += [""] * (int(name) - len(self.positional))
                self.positional[int(name) - 1] = value.strip()
            else:
                self.named[name.lower()] = value.strip()

    def at(self, number: int, *names: str) -> str:
        """The argument at a position (from 1 on), or the first of these names that is given."""
        for name in names:
            if self.named.get(name):
                return self.named[name]
        return self.positional[number - 1] if number <= len(self.positional) else ""

    def each(self) -> list[str]:
        return [value for value in self.positional if value]


def resolve(name: str, arguments: Sequence[str]) -> str:
    """The text of a template; REMOVED for one that is not resolved."""
    if len(name) > _MAX_NAME:
        return REMOVED
    written = " ".join(name.replace("_", " ").split())
    name = written.lower()
    known = _TEMPLATES.get(name)
    if known is not None:
        return known if isinstance(known, str) else known(Arguments(arguments))
    before, colon, first = written.partition(":")
    if colon and before.lower() in _FUNCTIONS:  # {{formatnum:1000}}; what stands behind the colon keeps its case
        return first
    if name.startswith(("lang-", "langue-")) and len(name) < 20:
        return Arguments(arguments).at(1, "text") or REMOVED
    return REMOVED


def _number(text: str) -> str:
    """A number with commas between thousands: 1300 is 1,300."""
    sign, digits = ("-", text[1:]) if text[:1] in "-−" and text else ("", text)
    whole, dot, rest = digits.partition(".")
    if whole.isascii() and whole.isdecimal() and len(whole) > 3 and whole[0] != "0" and len(whole) < 40:
        whole = f"{int(whole):,}"
    return f"{'−' if sign else ''}{whole}{dot}{rest}"


def _convert(given: Arguments) -> str:
    """The quantity as written: 5 to 10 km; 6 ft 2 in."""
    out: list[str] = []
    values = given.positional
    i = 0
    while i < len(values):
        value = values[i]
        if not value[:1].isdecimal() and value[:1] not in ("-", "−", ".", "+"):
            break
        out.append(_number(value))
        i += 1
        between = _RANGE.get(values[i]) if i < len(values) else None
        if between:
            out.append(between)
            i += 1
            continue
        unit = values[i] if i < len(values) else ""
        unit = _UNITS.get(unit, unit)
        out.append(unit if (unit[:1] in ("/", "°") and len(unit) == 1) or unit[:1] == "/" else f" {unit}")
        i += 1
        if unit in ("ft", "lb", "st", "mi", "yd") and i + 1 < len(values) and values[i + 1] in _SMALLER.get(unit, ()):
            out.append(" ")
            continue
        break
    return "".join(out).strip() or REMOVED


_SMALLER = {
    "ft": ("in", "inch"), "lb": ("oz",), "st": ("lb",), "mi": ("ft", "yd", "chain", "furlong"), "yd": ("ft", "in"),
}  # fmt: skip


def _date(given: Arguments, first: int = 1) -> str:
    """Year, month and day as `12 February 1809`, or with `mf` as `February 12, 1809`."""
    year, month, day = (given.at(first + i) for i in range(3))
    if month.isdecimal() and 1 <= int(month[:3]) <= 12:
        month = _MONTHS[int(month[:3]) - 1]
    elif not month.isalpha():
        month = day = ""
    if not year:
        return REMOVED
    day = day.lstrip("0") if day.isdecimal() else ""
    if day and given.at(99, "mf"):
        return f"{month} {day}, {year}"
    return " ".join(part for part in (day, month, year) if part)


def _value(given: Arguments) -> str:
    """A measured value: number, uncertainty or the end of a range, power of ten, unit."""
    out, second, third = _number(given.at(1)), given.at(2), given.at(3)
    power = given.at(99, "e")
    if third and second in _RANGE:
        out += _RANGE[second] + _number(third)
    elif third:
        out += f" +{second.lstrip('+')} −{third.lstrip('-−')}"
        out = f"({out})" if power else out
    elif second:
        out += second if second.startswith("(") else f"±{second.lstrip('±')}"
    if power:
        out += f"{'×' if out else ''}10<sup>{power}</sup>"
    unit, per = given.at(99, "u", "ul"), given.at(99, "up", "upl")
    unit = f"{unit}/{per}" if per else unit
    out = f"{given.at(99, 'p', 'pre')}{out}{given.at(99, 's', 'suf')}"
    return (f"{out} {unit}" if unit else out) or REMOVED


def _quantity(given: Arguments) -> str:
    """Number, units and their exponents: {{unité|10|e=3|m|s|-2}}."""
    first, *units = given.each() or [""]
    power = given.at(99, "e")
    out = f"{first}{'×' if first else ''}10<sup>{power}</sup>" if power else first
    for unit in units:
        out += f"<sup>{unit}</sup>" if _INTEGER.fullmatch(unit) else f" {unit}"
    return out or REMOVED


def _formula(given: Arguments) -> str:
    """Atoms with their numbers and the charge: {{chem|SO|4|2-}}."""
    return "".join(
        f"<sub>{part}</sub>" if part.isdecimal() else f"<sup>{part}</sup>" if _CHARGE.fullmatch(part) else part
        for part in given.each()
    )  # fmt: skip


_INTEGER, _CHARGE = re.compile(r"[+\-−]?\d{1,3}"), re.compile(r"\d*[+\-−–]")


def _fraction(given: Arguments) -> str:
    parts = given.each()
    if not parts:
        return REMOVED
    whole = parts[0] if len(parts) > 2 else ""
    above, below = (parts if len(parts) < 3 else parts[1:])[:2] if len(parts) > 1 else ("1", parts[0])
    return f"{whole}<sup>{above}</sup>/<sub>{below}</sub>"


def _quote(given: Arguments) -> str:
    text = given.at(1, "text", "quote", "content")
    if not text:
        return REMOVED
    by = [given.at(number, *names) for number, *names in ((2, "author", "sign", "by"), (3, "source", "title"))]
    by = [part for part in by if part and len(part) < 300]
    return f"\n\n{text}\n" + (f"— {', '.join(by)}\n\n" if by else "\n")


def _nihongo(given: Arguments) -> str:
    """English (kanji, romaji, further)."""
    inside = ", ".join(part for part in (given.at(2), given.at(3), given.at(4, "extra")) if part)
    first = given.at(1)
    return (f"{first} ({inside})" if first and inside else first or inside) or REMOVED


def _first(given: Arguments) -> str:
    return given.at(1, "text", "content") or REMOVED


def _second(given: Arguments) -> str:
    return given.at(2, "text") or given.at(1) or REMOVED


def _last(given: Arguments) -> str:
    return (given.each() or [given.at(1, "text")])[-1] or REMOVED


def _list(given: Arguments) -> str:
    """The items of a list in a sentence or a cell."""
    items = given.each()
    if len(items) == 1 and items[0].startswith("*"):
        items = [line.lstrip("*# ").strip() for line in items[0].split("\n")]
    return ", ".join(item for item in items if item) or REMOVED


def _lines(given: Arguments) -> str:
    """A list that stays one."""
    items = given.each()
    if len(items) == 1 and items[0].startswith(("*", "#")):
        return f"\n{items[0]}\n"
    return "\n" + "\n".join(f"* {item}" for item in items) + "\n" if items else REMOVED


def _joined(between: str) -> Callable[[Arguments], str]:
    return lambda given: between.join(given.each()) or REMOVED


def _dated(prefix: str, between: str) -> Callable[[Arguments], str]:
    """A date, or the first and last: c. 1066 – c. 1087."""
    return lambda given: f"{prefix} {between.join(given.each())}".rstrip()


def _tagged(name: str, base: str = "") -> Callable[[Arguments], str]:
    """An exponent or index, see scripts.py."""
    return lambda given: f"{base}<{name}>{given.at(1, 'text')}</{name}>" if given.at(1, "text") else REMOVED


def _power(given: Arguments) -> str:
    return f"{given.at(1)}<sup>{given.at(2)}</sup>" if given.at(2) else given.at(1)


def _named(names: str, value: str | Callable[[Arguments], str]) -> dict[str, str | Callable[[Arguments], str]]:
    return dict.fromkeys(names.split("; "), value)


def _ship(prefix: str) -> Callable[[Arguments], str]:
    return lambda given: f"{prefix} {given.at(1)}".strip()


def _currency(sign: str) -> Callable[[Arguments], str]:
    return lambda given: f"{sign}{given.at(1)}" if given.at(1) else sign


def _pronunciation(given: Arguments) -> str:
    sounds = [part for part in given.each() if part not in _PRONUNCIATION_LABELS]
    return f"/{''.join(sounds)}/" if sounds else REMOVED


_PRONUNCIATION_LABELS = frozenset(("lang", "pron", "us", "uk", "local", "also", "icon", "ipa", "US", "UK", "_"))
_FUNCTIONS = frozenset(("formatnum", "lc", "uc", "ucfirst", "lcfirst"))
_TEMPLATES: dict[str, str | Callable[[Arguments], str]] = {
    # numbers and quantities
    **_named("convert; cvt; konverter; convertir; conversion", _convert),
    **_named("val", _value),
    **_named("nts; number table sorting; num", _joined(" ")),
    **_named("nombre; unité; unit", _quantity),
    **_named("gaps", _joined("")),
    **_named("frac; sfrac; fraction", _fraction),
    **_named("e; esp", _tagged("sup", "×10")),
    **_named("10^", _tagged("sup", "10")),
    **_named("pow", _power),
    **_named("sup", _tagged("sup")),
    **_named("sub", _tagged("sub")),
    **_named("chem", _formula),
    **_named("chem2; math; mvar; bigmath", _joined("")),
    **_named("us$; usd", _currency("US$")),
    **_named("gbp; £", _currency("£")),
    **_named("eur; €", _currency("€")),
    **_named("inr; indian rupee", _currency("₹")),
    # dates
    **_named(
        "birth date; birth-date; birth date and age; bda; dob; start date; start date and age; end date; end date and "
        "age; film date; release date; launch date; death date; death date and age; death-date and age; dda; dts; "
        "date table sorting; birth year and age", _date
    ),
    **_named("circa; c.; ca.", _dated("c.", " – c. ")),
    **_named("floruit; fl.", _dated("fl.", "–")),
    **_named("reign; r.", _dated("r.", "–")),
    **_named("as of", lambda given: f"{'as' if given.at(99, 'lc') else 'As'} of {_date(given)}"),
    # languages
    **_named("lang; langue; idioma; lengua; native name; nativename; script; rtl-lang; langx", _second),
    **_named("transl; transliteration; tlit; translit; xlit; ipa", _last),
    **_named("ipac-en", _pronunciation),
    **_named("respell; pronunciation respelling key", _joined("-")),
    **_named("nihongo; nihongo2; nihongo krt; japonais", _nihongo),
    **_named("zh; zh-cn", lambda given: ", ".join([*given.named.values(), *given.each()][:2]) or REMOVED),
    # quotes
    **_named(
        "quote; quotation; cquote; blockquote; bq; quote box; rquote; citation bloc; zitat; cita; citazione; цитата; "
        "epigraph; poem quote; poemquote", _quote
    ),
    **_named("'\"; \"'; \" '; ' \"", "'\""),
    **_named("'s", "'s"),
    **_named("'", "'"),
    # signs
    **_named("!; pipe", "|"),
    **_named("=", "="),
    **_named("(", "("),
    **_named(")", ")"),
    **_named("·; •; dot; middot; bullet; \\; ·w; •w", " · "),
    **_named("ndash; en dash", "–"),
    **_named("mdash; em dash", "—"),
    **_named("snd; spnd; spaced ndash; spaced en dash; dash; ndashb", " – "),
    **_named("mdashb; spaced mdash", " — "),
    **_named("nbsp; space; spaces; thinsp; thin space; hair space", " "),
    **_named("br; break", "\n"),
    **_named("okina", "ʻ"),
    # what only sets text in another way
    **_named(
        "nowrap; nobr; small; smaller; big; larger; resize; nobold; noitalic; strong; em; sc; smallcaps; small caps; "
        "vanchor; visible anchor; linktext; key; keypress; kbd; code; mono; var; samp; tt; abbr; tooltip; "
        "abbrlink; ill; interlanguage link; angbr; not a typo; sic; center; centre; longitem; underline; strike; "
        "dfn; marriage; "
        "flag; flagcountry; flagu; railgauge; track gauge; block indent; center block; red; nastaliq", _first
    ),
    **_named("color; colour; font color; font colour; fontcolor", _second),
    **{prefix.lower(): _ship(prefix) for prefix in ("USS", "HMS", "SS", "RMS", "HMAS")},
    # lists
    **_named("hlist; flatlist; comma separated entries; cslist", _list),
    **_named("plainlist; plain list; ubl; unbulleted list; vunblist; ublist; bulleted list; blist", _lines),
    **_named("columns-list; div col list; column list; collapsible list", _lines),
    **_named("poem; verse", lambda given: f"\n{given.at(1, 'text')}\n"),
}  # fmt: skip
