"""Secrets in source code: what is found and masked, what is left in place, and text that is made to be slow."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.safety.pii.pii import Pii
from curation.safety.pii.secrets import SECRETS, entropy, find_secrets

BODY = "MIIEowIBAAKCAQEAx7Qk9vP2mZ4Lw8sT1yR6bN3cJ5hF0gD\nK7uE2iO4aS9pXzV6qWtY8rMnB1lC3jG5kH7fD0sA2xZ4vQ8w"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
FOUND = [
    ('aws = "AKIAQ2ZK7MWJX4HTN5VB"', "AKIAQ2ZK7MWJX4HTN5VB", "API_KEY"),
    ("# ghp_h8Kq2ZsW7mXv4TnB9cLr6YpJ3dFg5Ha1Ue0R", "ghp_h8Kq2ZsW7mXv4TnB9cLr6YpJ3dFg5Ha1Ue0R", "API_KEY"),
    ("https://hooks.slack.com/services/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",
     "T02AB9CDE/B7XK2LMNP/q8Zr5Tw1Yv6Xs3Mk9Hn4Jd7B", "API_KEY"),
    ('client_secret: "d8Kf2mZq7Lx4Rw9TbV3n"', "d8Kf2mZq7Lx4Rw9TbV3n", "API_KEY"),
    ("export API_TOKEN=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "API_KEY"),
    ("{'password': 'Gr1st-m1ll!'}", "Gr1st-m1ll!", "PASSWORD"),
    ('url = "postgres://miller:Fl0urStone9@db:5432/x"', "Fl0urStone9", "PASSWORD"),
    (f'k = """{PEM}"""', PEM, "PRIVATE_KEY"), (repr(PEM), repr(PEM)[1:-1], "PRIVATE_KEY"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "value", "entity"), FOUND)
def test_found(line: str, value: str, entity: str) -> None:
    text = f"é = 1\n{line}\nx = 2\n"
    found = {(text[lo:hi], e) for lo, hi, e, _ in find_secrets(text, SECRETS)}
    assert found == {(value, entity)}
    assert not list(find_secrets(text, [e for e in SECRETS if e != entity]))


@pytest.mark.parametrize(
    "line",
    [
        'key = "AKIAIOSFODNN7EXAMPLE"', 'api_key = "YOUR_API_KEY_HERE_1"', 'password = "changeme123!"',
        'token = "access_token_2"',
        'password = os.environ["PASSWORD_1"]', "secret_key: sha256_of_the_first_block1",
        'token = "00000000000000000000000000"',
        'BEGIN = "-----BEGIN PRIVATE KEY-----"', "if token == 'tests.parser.Token2Value.name3':", "https://user:pass@host/x",
        "password = 'correcthorse'",
        "version: 1.2.3.4", 'x = "d8Kf2mZq7Lx4Rw9TbV3n"', "token: Optional[AccessToken1] = None",
        'password_changed = "2016-09-08T20:47:36.567Z"', "sk-learn-is-a-name-of-a-package-that-is-long-enough",
    ],
)  # fmt: skip
def test_left_in_place(line: str) -> None:
    assert not list(find_secrets(f"x = 1\n{line}\ny = 2\n", SECRETS))


def test_the_step_masks_and_counts_them() -> None:
    step = Pii(entities=["EMAIL_ADDRESS", *SECRETS])
    step.check()
    text = f"# miller@mill.org\npassword = 'Gr1st-m1ll!'\n{PEM}\n"
    out = step(pa.record_batch({"text": pa.array([text, None, "x = 1"], pa.large_string())}))
    assert out.column("text").to_pylist() == [
        "# <EMAIL_ADDRESS>\npassword = '<PASSWORD>'\n<PRIVATE_KEY>\n",
        None,
        "x = 1",
    ]
    counts = out.column("pii").to_pylist()
    found = [(c["total"], c["password"], c["private_key"], c["api_key"]) for c in counts]
    assert found == [(3, 1, 1, 0), (0, 0, 0, 0), (0, 0, 0, 0)]
    urls = step.scrub(pa.array(["https://a.b/?token=ghp_h8Kq2ZsW7mXv4TnB9cLr6YpJ3dFg5Ha1Ue0R"]))
    assert urls.to_pylist() == ["https://a.b/?token=<API_KEY>"]


def test_entropy() -> None:
    assert (entropy("aaaa"), entropy("abab"), entropy("")) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ-",
        "sk-",
        "secret" + "a" * 30,
        "-----BEGIN PRIVATE KEY-----",
        "a://",
        "password=",
        "key: a ",
        "xoxb-a-",
        "://:",
    ],
)
def test_hostile_text_ends(unit: str) -> None:
    assert len(list(find_secrets(unit * (60_000 // len(unit)), SECRETS))) <= 1
