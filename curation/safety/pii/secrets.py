"""Finds secrets in source code: keys and tokens by known prefixes, private keys, and values that look like secrets.

Three entities of the step `pii`: API_KEY (keys and tokens of services by the form that the service gives them, and any
value of high entropy assigned to a name such as `api_key`), PRIVATE_KEY (blocks of PEM) and PASSWORD (values assigned
to a name such as `password`, and passwords in URLs). Forms are those that the services document and that scanners agree
on (https://github.com/Yelp/detect-secrets, https://github.com/gitleaks/gitleaks; StarCoder's kinds KEY and PASSWORD, Li
et al. 2023, arXiv 2305.06161, section 4). Placeholders and examples are left out: what says that it is one, repeats,
counts up, or has no digit.

Every pattern begins with letters of its own, and each part of it is bounded, so work is linear in the text.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

SECRETS = ("API_KEY", "PASSWORD", "PRIVATE_KEY")
MIN_ENTROPY = 3.2  # bits a character of a value of any letters: random base64 of 20 has 4, English words 2.5 to 3
MIN_HEX_ENTROPY = 2.9  # ... of hexadecimal digits, which have at most 4
_SCORE = 1.0
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{70,100}|glpat-[\w-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{20,200}|xapp-[A-Za-z0-9-]{20,200}"  # Slack
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,120}|whsec_[A-Za-z0-9]{24,64}"  # Stripe
    r"|AIza[\w-]{35}|ya29\.[\w-]{30,200}|GOCSPX-[\w-]{28}"  # Google
    r"|sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_-]{32,200}"  # OpenAI, Anthropic
    r"|hf_[A-Za-z0-9]{34,40}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{60,220}|dckr_pat_[\w-]{27}"
    r"|SG\.[\w-]{20,24}\.[\w-]{40,46}|SK[0-9a-f]{32}|key-[0-9a-f]{32}"  # SendGrid, Twilio, Mailgun
    r"|do[opr]_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|dapi[0-9a-f]{32}|EAAA[\w-]{60}|sq0[a-z]{3}-[\w-]{22,43}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{58}|hv[sb]\.[\w-]{24,120}|lin_api_[A-Za-z0-9]{40}|glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}"
    r"|[0-9]{8,10}:AA[\w-]{33}"  # Telegram
    r"|eyJ[\w-]{10,300}\.eyJ[\w-]{10,2000}\.[\w-]{20,1000}"  # JSON Web Token
    r")(?![A-Za-z0-9])"
)
# A text without one of these has no match of the pattern; looking for them all takes a tenth of its time.
_PREFIXES = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-"),
    *("k_live_", "k_test_", "whsec_", "AIza", "ya29.", "GOCSPX-", "sk-", "hf_", "npm_", "pypi-", "dckr_pat_", "SG."),
    *("SK", "key-", "_v1_", "shp", "dapi", "EAAA", "sq0", "AGE-SECRET", "hvs.", "hvb.", "lin_api_", "glsa_", ":AA"),
    "eyJ",
)  # fmt: skip
_NAMES = ("key", "secret", "token", "passw", "pwd", "credential")
_WEBHOOK = re.compile(
    r"hooks\.slack\.com/services/(T\w{6,12}/B\w{6,12}/\w{20,30})|AccountKey=([A-Za-z0-9+/]{86}==)"
    r"|discord(?:app)?\.com/api/webhooks/(\d{15,20}/[\w-]{60,72})"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"((?:[A-Za-z0-9+/=\s\\\"'`,.:()]|-(?!----)){0,16384}+)"
    r"(?:-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?"
)
_ASSIGNED = re.compile(
    r"(api_?-?key|apikey|secret|token|passw(?:or)?d|passwd|pwd|credential|access_?-?key|auth_?-?key|encryption_?-?key)"
    r"[\w.-]{0,32}[\"']?\]?[ \t]{0,8}(?::[ \t]{0,4}[A-Za-z]{1,12}[ \t]{0,4})?(?:=>|:=|==?|:)[ \t]{0,8}"
    r"(?:[\"'`]([^\"'`\s]{8,256})[\"'`]|([A-Za-z0-9+/_.=-]{16,256})(?=[ \t]*(?:[#;,}\r\n]|$)))",
    re.I | re.M,
)
_IN_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@\"'<>]{0,64}:([^\s:/@\"'<>]{6,128})@[A-Za-z0-9\[]")
_PLACEHOLDER = re.compile(
    r"example|sample|your|change|dummy|fake|foo|bar|test|mock|placeholder|redacted|xxxx|\*\*\*|\.\.\.|<|>|\$\{|\{\{|%[(s]|%\w+%"
    r"|1234|abcd|0000|aaaa|password|passwd|secret|invalid|deadbeef|lorem|default|none|null|insert|replace|todo|env\b|\.env",
    re.I,
)
_HEX = re.compile(r"[0-9a-fA-F-]+")
_WORDS = re.compile(
    r"[A-Za-z_.-]+\d{0,2}|[a-z]+(?:[_.:-][a-z0-9]+)+|[\w.]+\(.*|v?\d+(?:[._-]\d+)*"
    r"|\d{4}-\d\d-\d\d[T ].*|[A-Za-z]\w*(?:\.[A-Za-z]\w*)+|https?:.*|/.*|[\w.-]+/[\w./-]+"
)


def find_secrets(text: str, entities: Sequence[str]) -> Iterator[tuple[int, int, str, float]]:
    """(start, end, entity, score) of the secrets of these kinds in a text, in characters."""
    if "PRIVATE_KEY" in entities and "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            if len(_base64(match[1])) >= 48 and entropy(_base64(match[1])) > 4:
                yield match.start(), match.end(), "PRIVATE_KEY", _SCORE
    if "API_KEY" in entities:
        for match in _KEY.finditer(text) if any(prefix in text for prefix in _PREFIXES) else ():
            if not is_placeholder(match[0]) and _has_digit_or_both_cases(match[0]):
                yield match.start(), match.end(), "API_KEY", _SCORE
        for match in _WEBHOOK.finditer(text):
            group = match.lastindex or 0
            if not is_placeholder(match[group]):
                yield match.start(group), match.end(group), "API_KEY", _SCORE
    lower = text.lower()
    for match in _ASSIGNED.finditer(text) if any(name in lower for name in _NAMES) else ():
        entity = "PASSWORD" if match[1][0] in "pP" else "API_KEY"
        group = 2 if match[2] else 3
        value = match[group]
        right = is_password(value) and group == 2 if entity == "PASSWORD" else is_random(value)
        if right and entity in entities:
            yield match.start(group), match.end(group), entity, _SCORE
    if "PASSWORD" in entities and "://" in text and "@" in text:
        for match in _IN_URL.finditer(text):
            if is_password(match[1]):
                yield match.start(1), match.end(1), "PASSWORD", _SCORE


def entropy(value: str) -> float:
    """Shannon's entropy of a value's characters, in bits a character."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values()) if size else 0.0


def is_placeholder(value: str) -> bool:
    """Whether a value says that it is no secret, or is one character or a row of them."""
    return _PLACEHOLDER.search(value) is not None or entropy(value[-24:]) < 2.2


def _has_digit_or_both_cases(value: str) -> bool:
    """Whether a value is no name made of words, such as `sk-learn-compatible-estimators`."""
    return any(map(str.isdigit, value)) or (any(map(str.isupper, value)) and any(map(str.islower, value)))


def is_random(value: str) -> bool:
    """Whether a value is as disorderly as a key, and no word, number, path or placeholder."""
    if len(value) < 16 or is_placeholder(value) or _WORDS.fullmatch(value) or not any(c.isdigit() for c in value):
        return False
    if any(c in value for c in "(){}[]|^ ;<>\\,&?"):
        return False
    if _HEX.fullmatch(value):
        return len(value) >= 24 and entropy(value) >= MIN_HEX_ENTROPY
    return any(c.isalpha() for c in value) and entropy(value) >= MIN_ENTROPY and _mixed(value)


def is_password(value: str) -> bool:
    """Whether a quoted value is a password that someone chose: letters, and digits or signs among them."""
    if is_placeholder(value) or _WORDS.fullmatch(value) or any(c in value for c in "(){}[]\\"):
        return False
    kinds = sum((any(map(str.islower, value)), any(map(str.isupper, value)), any(map(str.isdigit, value)),
                 any(not c.isalnum() for c in value)))  # fmt: skip
    return kinds >= 3 and any(c.isdigit() for c in value) and entropy(value) >= 2.5


def _mixed(value: str) -> bool:
    """Whether digits and letters change places several times, as they do in a random value and not in `sha256_of_x`."""
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in value if c.isalnum()]
    return sum(a != b for a, b in itertools.pairwise(kinds)) >= len(kinds) // 4


def _base64(text: str) -> str:
    return "".join(re.findall(r"[A-Za-z0-9+/=]{20,}", text))
