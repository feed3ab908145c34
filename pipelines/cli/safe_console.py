"""The console that commands print to: rich, with its text cleaned before it adds its own control sequences.

Everything that rich prints goes through it: tables, live displays, progress bars, pagers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from pipelines.cli.terminal_output import clean, mask


class SafeConsole(Console):
    """Cleans and masks its text. Strings are plain text: no markup and no emoji codes are looked for in them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string, before it is laid out."""
        return super().render_str(mask(clean(text)), **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """Everything else, texts with styles too, before it is written; a control segment is rich's own."""
        return super()._render_buffer(s if s.control else _clean_segment(s) for s in buffer)


def _clean_segment(segment: Segment) -> Segment:
    style = segment.style
    if style is not None and style.link:  # what is printed during a live display may ask rich for a link
        style = style.update_link(None)
    return Segment(mask(clean(segment.text)), style)
