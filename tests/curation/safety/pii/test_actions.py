"""What is done about findings: which are left alone, pseudonyms, overlaps."""

from __future__ import annotations

import ipaddress

import pytest

from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from tests.curation.safety.pii.test_candidate_windows import theirs
from tests.curation.safety.pii.test_pii import run


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.1", "127.0.0.1", "192.168.1.31", "172.16.0.1", "169.254.1.1", "203.0.113.9", "255.255.255.255"),
        *("you@example.com", "me@mail.example.org", "x@host.test", "fe80::1", "2001:db8::1", "::1", "fd00::12:34"),
        *("x[::2]", "ab::cd", "C::D", "std::a::b", "2::", "in 1640 and 1641", "0xdead::beef", "123456789"),
    ],
)
def test_what_concerns_nobody_stays(text: str) -> None:
    texts, counts = run([text])
    assert texts == [text] and counts[0]["total"] == 0


def test_stand_ins_are_well_formed_consistent_and_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_PII_KEY", "a key of many letters")
    actions = dict.fromkeys(DEFAULT_ENTITIES, "pseudonym")
    values = ["bob@python.org", "8.8.8.8", "2001:4860:4860::8888", "212-555-5555", "4111 1111 1111 1111"]
    values += ["536-90-4399", "DE89370400440532013000"]
    texts, counts = run([f"is {v} it" for v in [*values, "BOB@python.org", "4111-1111-1111-1111"]], actions=actions)
    new = [str(t).removeprefix("is ").removesuffix(" it") for t in texts]
    assert all(c["total"] == 1 for c in counts) and not set(new) & set(values)
    assert new[0].endswith("@example.com") and new[7] == new[0]
    assert ipaddress.ip_address(new[1]).is_private and not ipaddress.ip_address(new[2]).is_global
    assert "-555-01" in new[3] and new[5].startswith("9") and len(new[5]) == 11
    assert new[8] == new[4] and theirs(new[6]) is not None
    luhn = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(new[4]))]
    assert sum(luhn) % 10 == 0
    assert int("".join(str(int(c, 36)) for c in new[6][4:] + new[6][:4])) % 97 == 1
    monkeypatch.setenv("GRISTMILL_PII_KEY", "another key")
    assert run(["is bob@python.org it"], actions=actions)[0][0] != texts[0]
