"""Numbers and units of siunitx as text."""

from __future__ import annotations

import pytest

from curation.sources.latex import siunitx

QUANTITIES = [
    ("SI", ["5", r"\meter"], "5 m"),
    ("SI", ["30", r"\degree"], "30°"),
    ("SI", ["20", r"\degreeCelsius"], "20 °C"),
    ("SI", ["3", r"\percent"], "3 %"),
    ("qty", ["9.81", r"\meter\per\second\squared"], "9.81 m/s^2"),
    ("qty", ["9.81", "m.s^{-2}"], "9.81 m s^-2"),
    ("qty", ["1", r"\joule\per\kilogram\per\kelvin"], "1 J/(kg K)"),
    ("SIrange", ["1", "5", r"\micro\meter"], "1–5 µm"),
    ("SIlist", ["1;2;3", r"\km"], "1, 2, 3 km"),
    ("num", ["1.2e-5"], "1.2×10^-5"),
    ("num", ["e6"], "10^6"),
    ("num", ["1,5 +- 0,1"], "1,5±0,1"),
    ("num", ["2 x 3"], "2×3"),
    ("num", ["1.23(4)e5"], "1.23(4)×10^5"),
    ("num", [r"\myvalue"], r"\myvalue"),
    ("ang", ["12;30;5"], "12°30′5″"),
    ("si", [r"\kilo\watt\hour"], "kW h"),
    ("unit", [r"\per\second"], "s^-1"),
    ("unit", [r"\square\kilo\meter"], "km^2"),
    ("unit", [r"\kilogram\metre\tothe{4}"], "kg m^4"),
    ("unit", [r"kg.m/s^2"], "kg m/s^2"),
    ("unit", [r"\per\cubic\centi\meter"], "cm^-3"),
    ("unit", [r"\um"], "µm"),
    ("unit", [r"\bushel"], "bushel"),
    ("unit", [""], ""),
    ("unit", [r"\squared"], ""),
    ("unit", [r"\kilo"], "k"),
]


@pytest.mark.parametrize(("command", "arguments", "text"), QUANTITIES)
def test_quantities(command: str, arguments: list[str], text: str) -> None:
    assert siunitx.text_of(command, arguments) == text
