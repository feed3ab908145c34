"""Numbers as people read them."""

from __future__ import annotations

import pytest

from pipelines.number_format import format_bytes, format_count, format_duration


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")])
def test_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (4.2e6, "4.2 MB"), (3e15, "3000.0 TB")])
def test_bytes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(("count", "text"), [(950, "950"), (12_340, "12.3k"), (4.56e6, "4.56M"), (1.2e9, "1.2B")])
def test_count(count, text):
    assert format_count(count) == text
