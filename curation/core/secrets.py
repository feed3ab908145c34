"""Masks what is a secret by its shape: keys, tokens and passwords, in messages, logs, notes and cards.

Values of variables (`${VAR}`) are never written in the first place (yaml_lines.py). This is the second net: an error of
an object store repeats its URL, a pip error its index with the password in it. The shapes are those that the services
document and that secret scanners look for.
"""

from __future__ import annotations

import functools
import re

MASK = "***"

_NAMES = (
    r"(?:[\w-]*(?:password|passwd|secret|token(?!iz)|api[_-]?key|access[_-]?key|account[_-]?key|signature|credential)"
    r"[\w-]*|pwd|sig|auth|key)"  # a phase of the tokenizer is none
)
_SHAPES = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), MASK),
    (re.compile(r"(?<=://)[^\s/?#@'\"]+@"), f"{MASK}@"),  # user:password@host
    (re.compile(r"\b((?:Bearer|Basic)\s+)[A-Za-z0-9+/=._~-]{8,}"), rf"\1{MASK}"),
    # a parameter of a URL, an option, a setting in a message
    (re.compile(rf"([?&;]{_NAMES}=)[^\s&;#'\"]+", re.I), rf"\1{MASK}"),
    (re.compile(rf"(\b(?!key\b|auth\b){_NAMES}['\"]?\s*[=:]\s*['\"]?)[^\s,;&'\"}}){{(]{{6,}}", re.I), rf"\1{MASK}"),
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"), MASK),  # AWS
    (re.compile(r"\bAIza[\w-]{30,}"), MASK),  # Google
    (re.compile(r"\bya29\.[\w.-]{20,}"), MASK),
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}"), MASK),  # Hugging Face
    (re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})"), MASK),  # GitHub, GitLab
    (re.compile(r"\bsk-[\w-]{16,}|\b[sr]k_(?:live|test)_\w{16,}"), MASK),  # OpenAI, Anthropic, Stripe
    (re.compile(r"\bxox[abeoprs]-[\w-]{10,}"), MASK),  # Slack
    (re.compile(r"\bpypi-[\w-]{16,}|\bnpm_[A-Za-z0-9]{30,}|\bdapi[0-9a-f]{30,}"), MASK),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), MASK),  # JSON Web Token
)


def mask_secrets(text: str) -> str:
    """The text with everything that looks like a secret replaced by `***`."""
    if len(text) < 20 and text.isalnum():  # no shape is so short without a mark; a log has a task's number in each line
        return text
    return _mask_short(text) if len(text) < 64 else _mask(text)


@functools.lru_cache(maxsize=64)
def _mask_short(text: str) -> str:
    """As `_mask`: a log names its phase and its event in each line, and 14 patterns take longer than writing it."""
    return _mask(text)


def _mask(text: str) -> str:
    for shape, mask in _SHAPES:
        text = shape.sub(mask, text)
    return text
