"""The one place through which text reaches the terminal: cuts control characters, and masks secrets in messages.

Crawled text, URLs, rule names and error messages may contain escape sequences that recolour, move, hide or answer for
the terminal. `guard_streams` wraps stdout and stderr, for print, warnings, logs and tracebacks; `SafeConsole`
(safe_console.py) does the same for what rich prints and adds rich's own sequences afterwards.
Data on stdout (`--json`, generated text) keeps what looks like a secret; JSON escapes control characters by itself.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

# Whole sequences first: CSI (colours, cursor), OSC, DCS, SOS, PM and APC (titles, links, clipboard) up to their end,
# other escapes with the byte after them; then every control character but tab and line feed, and the characters that
# override the direction of text, which show a line in another order than it has.
_SEQUENCES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without control sequences and characters. A carriage return, which would overwrite the line, is a line
    break."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))


def mask(text: str) -> str:
    """The text with what looks like a secret masked."""
    from curation.core.secrets import mask_secrets  # not needed, and not imported, for --help

    return mask_secrets(text)


class SafeStream:
    """A text stream that cleans what is written to it."""

    def __init__(self, stream: Any, masks: bool) -> None:
        self._stream, self._masks = stream, masks
        self.rich_proxied_file = stream  # where rich consoles write: their own sequences pass, see SafeConsole

    def write(self, text: str) -> int:
        text = clean(text)
        self._stream.write(mask(text) if self._masks else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guard_streams() -> Iterator[None]:
    """Wraps stdout and stderr for the time of the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = SafeStream(sys.stdout, False), SafeStream(sys.stderr, True)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before
