r"""Writes the numbers and units of LaTeX's siunitx package as text: \SI{5}{\kilo\meter\per\hour} is 5 km/h.

Powers have their sign (m^2), units after \per a slash; a unit that is not known is its name.

Commands and units: https://ctan.org/pkg/siunitx.
"""

from __future__ import annotations

import re

# Command -> what its arguments are: n a number, u a unit.
COMMANDS = {
    "SI": "nu", "qty": "nu", "num": "n", "si": "u", "unit": "u", "ang": "n", "SIrange": "nnu", "qtyrange": "nnu",
    "numrange": "nn", "SIlist": "nu", "qtylist": "nu", "numlist": "n",
}  # fmt: skip
_PREFIXES = {
    "quecto": "q", "ronto": "r", "yocto": "y", "zepto": "z", "atto": "a", "femto": "f", "pico": "p", "nano": "n",
    "micro": "µ", "milli": "m", "centi": "c", "deci": "d", "deca": "da", "deka": "da", "hecto": "h", "kilo": "k",
    "mega": "M", "giga": "G", "tera": "T", "peta": "P", "exa": "E", "zetta": "Z", "yotta": "Y", "kibi": "Ki",
    "mebi": "Mi", "gibi": "Gi", "tebi": "Ti",
}  # fmt: skip
_UNITS = {
    "meter": "m", "metre": "m", "gram": "g", "kilogram": "kg", "second": "s", "ampere": "A", "kelvin": "K",
    "mole": "mol", "candela": "cd", "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J", "watt": "W",
    "coulomb": "C",
    "volt": "V", "farad": "F", "ohm": "Ω", "siemens": "S", "weber": "Wb", "tesla": "T", "henry": "H", "lumen": "lm",
    "lux": "lx", "becquerel": "Bq", "gray": "Gy", "sievert": "Sv", "katal": "kat", "radian": "rad", "steradian": "sr",
    "celsius": "°C", "degreeCelsius": "°C", "degree": "°", "arcminute": "′", "arcsecond": "″", "percent": "%",
    "minute": "min", "hour": "h", "day": "d", "liter": "L", "litre": "L", "tonne": "t", "hectare": "ha", "bar": "bar",
    "electronvolt": "eV", "dalton": "Da", "astronomicalunit": "au", "angstrom": "Å", "bel": "B", "decibel": "dB",
    "neper": "Np", "bit": "bit", "byte": "B", "parsec": "pc", "year": "yr", "atomicmassunit": "u", "barn": "b",
    "um": "µm", "us": "µs", "ug": "µg", "uL": "µL", "ul": "µl", "uA": "µA", "uV": "µV", "uW": "µW", "uF": "µF",
    "uH": "µH", "uJ": "µJ", "umol": "µmol", "kohm": "kΩ", "Mohm": "MΩ", "degC": "°C", "kWh": "kWh",
}  # fmt: skip
_POWERS = {"squared": "2", "cubed": "3", "square": "2", "cubic": "3"}
_NO_SPACE = ("°", "′", "″")  # SI Brochure, section 5.4.3: a space goes before °C, none before degrees
_TOKEN = re.compile(r"\\([A-Za-z]+)\s*(?:\{([^{}\\]{0,20})\})?|([./*~\s]+)|(\^)\{?([-+−]?\w{1,9})\}?|([^\\./*~\s^{}]+)")
_NUMBER = re.compile(
    r"(?P<digits>[-+−<>≤≥~]?\s*[\d.,]*)(?:\((?P<uncertainty>[\d.]+)\))?(?:[eEdD](?P<exponent>[-+−]?\d+))?"
)


def text_of(command: str, arguments: list[str]) -> str:
    """What a command of siunitx says. `arguments`: as many as COMMANDS names."""
    kinds = COMMANDS[command]
    numbers = [_number(a, command) for a, kind in zip(arguments, kinds, strict=True) if kind == "n"]
    unit = _unit(arguments[-1]) if kinds[-1] == "u" else ""
    joined = "–".join(numbers)
    return f"{joined}{'' if not joined or (unit[:1] in _NO_SPACE and unit != '°C') else ' '}{unit}".strip()


def _number(source: str, command: str) -> str:
    source = source.strip().replace(r"\pm", "±").replace("+-", "±").replace("~", "")
    if command == "ang":
        return "".join(f"{part}{sign}" for part, sign in zip(source.split(";"), _NO_SPACE, strict=False) if part)
    return ", ".join(_product(part) for part in source.split(";")) if command.endswith("list") else _product(source)


def _product(source: str) -> str:
    return "×".join("±".join(_one(part) for part in factor.split("±")) for factor in source.split("x"))


def _one(source: str) -> str:
    found = _NUMBER.fullmatch(source.strip())
    if found is None:
        return source.strip()
    digits, exponent = found["digits"], found["exponent"]
    uncertainty = f"({found['uncertainty']})" if found["uncertainty"] else ""
    power = f"10^{exponent.removeprefix('+')}" if exponent else ""
    return f"{digits}{uncertainty}{'×' if digits and power else ''}{power}"


def _unit(source: str) -> str:
    above: list[str] = []
    below: list[str] = []
    prefix, power, side, last = "", "", above, above  # the side of the next unit, and of the last one
    for name, given, between, raised, exponent, literal in _TOKEN.findall(source):
        if between:
            side = below if "/" in between else above
        elif name == "per":
            side = below
        elif name in _PREFIXES:
            prefix += _PREFIXES[name]
        elif name in ("square", "cubic"):
            power = _POWERS[name]
        elif name == "raiseto":
            power = given
        elif name in ("squared", "cubed", "tothe") or raised:
            if last:
                last[-1] += f"^{_POWERS.get(name) or given or exponent}"
        elif name not in ("highlight", "of", "cancel"):
            unit = prefix + (_UNITS.get(name, name) if name else literal)
            side.append(f"{unit}^{power}" if power else unit)
            last, prefix, power, side = side, "", "", above
    if prefix:
        side.append(prefix)
    if not below:
        return " ".join(above)
    if not above:
        return " ".join(f"{u}^-1" if "^" not in u else u.replace("^", "^-") for u in below)
    return f"{' '.join(above)}/{below[0] if len(below) == 1 else '(' + ' '.join(below) + ')'}"
