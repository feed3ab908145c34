"""Decides whether a finding is replaced, and makes the replacement: mask, pseudonym or nothing.

presidio reports what looks like personal data. Not replaced are: addresses that belong to no person (private, reserved
and documentation networks; example.com and the like), findings with a score under 0.3 (presidio takes any nine digits
for a US_SSN at 0.05), telephone numbers under seven digits (the year 1640 is a valid German pager number), and what
looks like IPv6 but is more likely code (`x[::2]`, `ab::cd`).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
from typing import Literal

Action = Literal["mask", "pseudonym", "remove"]

MIN_SCORE = 0.3
_MIN_PHONE_DIGITS = 7
# Reserved names, RFC 2606 and RFC 6761.
_RESERVED_DOMAINS = ("example.com", "example.org", "example.net", "example", "invalid", "localhost", "test")
_BELOW_RESERVED = tuple("." + name for name in _RESERVED_DOMAINS)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def is_personal(entity: str, value: str, score: float) -> bool:
    """Whether a finding is personal data that is replaced."""
    if score < MIN_SCORE:
        return False
    if entity == "EMAIL_ADDRESS":
        host = value.rpartition("@")[2].lower()
        return not (host in _RESERVED_DOMAINS or host.endswith(_BELOW_RESERVED))
    if entity == "IP_ADDRESS":
        return _is_public_address(value)
    if entity == "PHONE_NUMBER":
        return sum(map(str.isdecimal, value)) >= _MIN_PHONE_DIGITS
    return True


@functools.lru_cache(maxsize=65_536)
def _is_public_address(value: str) -> bool:
    """True for global IPv4 addresses, also inside IPv6, and global unicast IPv6 (2000::/3) of three groups or more."""
    try:
        address = ipaddress.ip_interface(value).ip
    except ValueError:
        return True  # presidio reported it: better masked than missed
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_global
        groups = [g for g in value.partition("%")[0].partition("/")[0].split(":") if g]
        return address in _GLOBAL_UNICAST and len(groups) >= 3 and address.is_global
    return address.is_global


def replacement(entity: str, value: str, action: Action, key: bytes) -> str:
    """The replacement of a value: nothing, `<ENTITY>`, or a pseudonym made from its keyed hash."""
    if action == "remove":
        return ""
    if action == "mask":
        return f"<{entity}>"
    return pseudonym(entity, value, key)


def pseudonym(entity: str, value: str, key: bytes) -> str:
    """A well-formed pseudonym that belongs to no person; equal values have equal pseudonyms under the same key.

    The hash is HMAC-SHA256 of the entity and the value without case and separators, so a number written in two ways has
    one pseudonym. Addresses are in ranges that are not routed, numbers in ranges that are never assigned.
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
    """The digits plus their check digit (ISO/IEC 7812)."""
    total = sum(d if i % 2 else d * 2 - 9 * (d > 4) for i, d in enumerate(map(int, reversed(digits))))
    return digits + str(-total % 10)
