"""Lists the old names of renamed keys and commands, each with its new name: an old one is refused with "renamed to …".

Only this module may hold old names. It will be removed at version 1.0.
"""

from __future__ import annotations

# Commands of the command line, without `gristmill`
COMMANDS: dict[str, str] = {
    "forget": "delete",
    "order": "data inspect-step (with --step) or data verify-order (with --verify)",
    "trace": "data trace-token",
    "seen": "data find-document",
}
