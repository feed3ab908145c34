"""What is done about a finding: whether it names somebody at all, and what takes its place.

presidio says what looks like personal data; this decides what is acted on. Left alone: addresses that lead to nobody
(private, reserved and documentation networks; example.com and the like), findings presidio itself hardly believes
(score under 0.3: any nine digits are a US_SSN to it at 0.05), telephone "numbers" under seven digits (the year 1640 is
a valid German pager), and what looks like IPv6 but is more likely code (`x[::2]`, `ab::cd`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Literal

Action = Literal["mask", "pseudonym", "remove"]
Finding = tuple[int, int, str, float]  # start, end, entity, score

MIN_SCORE = 0.3
_MIN_PHONE_DIGITS = 7
# RFC 2606 and RFC 6761: names that are nobody's.
_NOBODYS = ("example.com", "example.org", "example.net", "example", "invalid", "localhost", "test")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def concerns_somebody(entity: str, value: str, score: float) -> bool:
    """Whether a finding is acted on."""
    if score < MIN_SCORE:
        return False
    if entity == "EMAIL_ADDRESS":
        host = value.rpartition("@")[2].lower()
        return not any(host == name or host.endswith("." + name) for name in _NOBODYS)
    if entity == "IP_ADDRESS":
        return _leads_somewhere(value)
    if entity == "PHONE_NUMBER":
        return sum(map(str.isdecimal, value)) >= _MIN_PHONE_DIGITS
    return True


def _leads_somewhere(value: str) -> bool:
    """Global IPv4 addresses, also inside IPv6; global unicast IPv6 (2000::/3) of three written groups or more."""
    try:
        address = ipaddress.ip_interface(value).ip
    except ValueError:
        return True  # presidio took it for one: better masked than missed
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_global
        groups = [g for g in value.partition("%")[0].partition("/")[0].split(":") if g]
        return address in _GLOBAL_UNICAST and len(groups) >= 3 and address.is_global
    return address.is_global


def meant(findings: list[Finding], text: str) -> list[Finding]:
    """The findings in a text that are acted on. Digits of an IP address are no telephone number."""
    addresses = [f for f in findings if f[2] == "IP_ADDRESS" and f[3] >= MIN_SCORE]
    return [
        f
        for f in findings
        if concerns_somebody(f[2], text[f[0] : f[1]], f[3])
        and not (f[2] == "PHONE_NUMBER" and any(a[0] <= f[0] and f[1] <= a[1] for a in addresses))
    ]


def settle(findings: list[Finding]) -> list[Finding]:
    """Findings without overlaps, by position: those that overlap become one over all of them, named by the best.

    The best has the highest score, then is the longest, then comes first in the text and in the alphabet. Union and not
    choice, so that no part of a value is left standing beside the mask of another.
    """
    merged: list[Finding] = []
    best: Finding | None = None
    for f in sorted(findings):
        if merged and best is not None and f[0] < merged[-1][1]:
            best = min(best, f, key=lambda g: (-g[3], g[0] - g[1], g[0], g[2]))
            start, end = merged[-1][0], max(merged[-1][1], f[1])
            merged[-1] = (start, end, best[2], best[3])
        else:
            best = f
            merged.append(f)
    return merged


def replacement(entity: str, value: str, action: Action, key: bytes) -> str:
    """What stands for a value: nothing, `<ENTITY>`, or a stand-in made from its keyed hash."""
    if action == "remove":
        return ""
    if action == "mask":
        return f"<{entity}>"
    return pseudonym(entity, value, key)


def pseudonym(entity: str, value: str, key: bytes) -> str:
    """A well-formed stand-in that belongs to nobody; the same value always has the same one, under the same key.

    The hash is HMAC-SHA256 of the entity and the value without case and separators, so one number written in two ways
    has one stand-in. Addresses are in ranges that are not routed, numbers in ranges that are never assigned.
    """
    bare = value.lower() if entity == "EMAIL_ADDRESS" else "".join(c for c in value.lower() if c.isalnum() or c in ".:")
    digest = hmac.new(key, f"{entity}\0{bare}".encode(), hashlib.sha256).digest()
    number = int.from_bytes(digest, "big")
    digits = f"{number % 10**20:020d}"
    if entity == "EMAIL_ADDRESS":
        return f"user-{digest.hex()[:12]}@example.com"
    if entity == "IP_ADDRESS":
        if ":" in value:
            return str(ipaddress.IPv6Address((0x20010DB8 << 96) | number % (1 << 96)))  # RFC 3849, documentation
        return str(ipaddress.IPv4Address((10 << 24) | number % (1 << 24)))  # RFC 1918, private
    if entity == "PHONE_NUMBER":
        return f"+1-{2 + number % 8}{digits[:2]}-555-01{digits[2:4]}"  # 555-0100 to 0199 are kept for fiction
    if entity == "CREDIT_CARD":
        return _luhn("0" + digits[:14])  # no issuer begins with 0
    if entity == "US_SSN":
        return f"9{digits[:2]}-{digits[2:4]}-{digits[4:8]}"  # areas from 900 on are never issued
    if entity == "IBAN_CODE":
        check = 98 - int("".join(str(int(c, 36)) for c in digits[:16] + "ZZ00")) % 97
        return f"ZZ{check:02d}{digits[:16]}"  # no country
    return f"<{entity}_{digest.hex()[:12]}>"


def _luhn(digits: str) -> str:
    """The digits with the check digit behind them that makes them pass (ISO/IEC 7812)."""
    total = sum(d if i % 2 else d * 2 - 9 * (d > 4) for i, d in enumerate(map(int, reversed(digits))))
    return digits + str(-total % 10)
