"""Numbers that are nobody's are left out, personal ones beside them are not.

Covers: telephone/telephone_word_kernel.py
"""

from __future__ import annotations

import random

import pytest

from curation.core.errors import UserError
from curation.safety.pii.pii import Pii
from tests.curation.safety.pii.test_pii import run

NOBODYS = [
    "Driver version 14.2.13.8 is needed.",
    "Compare section 3.1.12.2 and figure 12.1.4.2.",
    "served by lighttpd/1.14.35.2 today",
    "2.3.1.4 Stones and belts",
    "the arc 1.3.6.1.4.1.2021.11.9 of the tree",
    "ISBN 3-411-04012-6 and ISBN-10 0-306-40615-2",
    "PMID 20458231, ISSN 2049-3630",
    "1963-64 34-12",
    "in all 12 345 678 901 francs",
    "61.25 4.518 733",
    "1911 604 388 2190",
    "0.2125550147",
    "git clone git@forge.mill.org:stones/belts.git",
    "updated_at 1699182000",
    "what changed from 4.7.22 to 4.7.22.1",
    "millstones [2:3.14.2.7 (testing, now)]",
    "little changed between versions 4.7.8 and 4.7.8.1 of it",
    "slower grinding relative to 4.7.23.1 on some stones",
    "after 4.7 or 5.0.0.1, upgraded to 4.7.22.3, the latest release is 4.7.22.4",
]


@pytest.mark.parametrize("text", NOBODYS)
def test_left_out(text: str) -> None:
    (new,), (counts,) = run([text])
    assert new == text and counts["total"] == 0


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Call (212) 736-5031 or 212-736-5032.", "Call <PHONE_NUMBER> or <PHONE_NUMBER>."),
        ("phone 2127365031, fax: +49 30 901820", "phone <PHONE_NUMBER>, fax: <PHONE_NUMBER>"),
        ("seen from 93.184.216.34:8080", "seen from <IP_ADDRESS>:8080"),
        ("http://93.184.216.34/a", "http://<IP_ADDRESS>/a"),
        ("it answers to 93.184.216.34 or 23.4.9.61", "it answers to <IP_ADDRESS> or <IP_ADDRESS>"),
        ("Connect to 8.8.8.8", "Connect to <IP_ADDRESS>"),
        ("dig 8.8.4.4 or try 8.8.8.8", "dig <IP_ADDRESS> or try <IP_ADDRESS>"),
        ("user at 24.12.9.3 posted", "user at <IP_ADDRESS> posted"),
        ("ping 8.8.4.4 or 8.8.8.8, not 9.9.9.9", "ping <IP_ADDRESS> or <IP_ADDRESS>, not <IP_ADDRESS>"),
        ("on 3.11.10 at 24.12.9.3", "on 3.11.10 at <IP_ADDRESS>"),
        (
            "2 and 3.4.5.6, 2.5% by 24.12.9.3, page 12 is 8.8.8.8",
            "2 and <IP_ADDRESS>, 2.5% by <IP_ADDRESS>, page 12 is <IP_ADDRESS>",
        ),
        ("forward 8080:23.4.9.11:80", "forward 8080:<IP_ADDRESS>:80"),
        ("write to git@mill.org or ann@mill.org: now", "write to <EMAIL_ADDRESS> or <EMAIL_ADDRESS>: now"),
        ("card 4111 1111 1111 1111", "card <CREDIT_CARD>"),
        ("ssn 536-90-4399", "ssn <US_SSN>"),
    ],
)
def test_kept(text: str, masked: str) -> None:
    assert run([text])[0] == [masked]


@pytest.mark.parametrize(
    ("region", "before", "number"),
    [
        ("CN", "请拨打电话：", "13812345678"),
        ("TW", "手機 ", "0912345678"),
        ("JP", "お電話： ", "0312345678"),
        ("KR", "전화: ", "0212345678"),
        ("RU", "тел. ", "84951234567"),
        ("IL", "טלפון: ", "021234567"),
        ("SA", "هاتف ", "0112345678"),
        ("IN", "फ़ोन ", "9812345678"),
        ("TH", "โทร ", "021234567"),
    ],
)
def test_a_word_for_telephone_counts_in_every_script(region: str, before: str, number: str) -> None:
    texts: list[str | None] = [f"{before}{number}", f"я хотел {number}"]
    assert run(texts, regions=[region])[0] == [f"{before}<PHONE_NUMBER>", texts[1]]


def test_presidios_decisions_stay_available() -> None:
    (text,), _ = run(["2.3.1.4 Stones and belts"], decisions="presidio")
    assert text == "<IP_ADDRESS> Stones and belts"


def test_generated_tables_have_no_masks() -> None:
    rng = random.Random(11)
    kinds = {
        "headings": lambda: f"{rng.randint(1, 9)}.{rng.randint(1, 20)}.{rng.randint(1, 9)}.{rng.randint(1, 9)} Belts",
        "versions": lambda: f"mill{rng.randint(1, 9)} {rng.randint(1, 20)}.{rng.randint(0, 20)}.{rng.randint(0, 99)}.3",
        "seasons": lambda: (
            f"{rng.randint(1950, 2020)}-{rng.randint(10, 99)} 3{rng.randint(1, 9)}-{rng.randint(10, 99)}"
        ),
        "books": lambda: f"ISBN {rng.randint(0, 9)}-{rng.randint(100, 999)}-{rng.randint(10000, 99999)}-1",
        "floats": lambda: f"{rng.random() * 100:.2f} {rng.random() * 10:.3f} {rng.randint(1, 999)}",
    }
    texts: list[str | None] = ["\n".join(make() for _ in range(150)) for make in kinds.values()]
    before = [c["total"] for c in run(texts, decisions="presidio")[1]]
    now = [c["total"] for c in run(texts)[1]]
    assert sum(before) > 300 and sum(now) <= 0.05 * sum(before)


def test_regions_of_telephone_numbers() -> None:
    text = "电话：138 1234 5678。電話 03-1234-5678 まで"
    assert "138 1234 5678" in str(run([text])[0][0])
    assert run([text], regions=["CN", "JP"])[0] == ["电话：<PHONE_NUMBER>。電話 <PHONE_NUMBER> まで"]
    with pytest.raises(UserError, match="`regions` names XX"):
        Pii(regions=["US", "XX"]).check()
