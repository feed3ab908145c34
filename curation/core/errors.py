"""The error that a user can fix: every part of the project raises this one, and the command line prints it."""

from __future__ import annotations


class UserError(Exception):
    """Something the user has to change: shown without a traceback, exit code 2.

    The message says what is wrong, where, and what to do about it.
    """
