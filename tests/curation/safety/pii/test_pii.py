"""The step `pii`: masks, counts, rules, options, and what it must not keep."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from curation.core.errors import UserError
from curation.safety.pii import presidio_engine
from curation.safety.pii.pii import Pii
from tests.curation.safety.pii.test_candidate_windows import ours


def run(texts: list[str | None], **options: object) -> tuple[list[str | None], list[dict[str, int]]]:
    step = Pii(**options)  # type: ignore[arg-type]
    step.check()
    step.open()
    out = step(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert out.schema.field(step.name).type == pa.struct(list(step.signals))
    return out.column("text").to_pylist(), out.column(step.name).to_pylist()


def test_masks() -> None:
    (text, untouched, null), counts = run(
        ["mail bob@python.org, call 212-555-5555; 8.8.8.8 and 2001:4860:4860::8888; ssn 536-90-4399.", "plain", None]
    )
    assert text == "mail <EMAIL_ADDRESS>, call <PHONE_NUMBER>; <IP_ADDRESS> and <IP_ADDRESS>; ssn <US_SSN>."
    assert (untouched, null) == ("plain", None)
    assert counts[0]["total"] == 5 and counts[0]["ip_address"] == 2 and counts[0]["us_ssn"] == 1
    assert counts[1]["total"] == counts[2]["total"] == 0


def test_code_is_left_alone(data: Path) -> None:
    import sysconfig

    lines = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]:
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    texts, _ = run(["\n".join(lines)])
    new = str(texts[0]).splitlines()
    touched = sum(a != b for a, b in zip(lines, new, strict=True))
    assert len(lines) > 20_000 and touched <= len(lines) / 1000


def test_remove_and_drop_above_a_count() -> None:
    assert run(["a bob@python.org b"], actions={"EMAIL_ADDRESS": "remove"})[0] == ["a  b"]
    assert Pii(max_findings=5).rules() == {"pii_count": "pii.total <= 5"}
    assert Pii().rules() == {}


def test_entities_of_other_languages_and_countries() -> None:
    assert run(["Steuer-ID 65929970489"], language="de", entities=["DE_TAX_ID"])[0] == ["Steuer-ID <DE_TAX_ID>"]
    assert run(["NIF 55555555K, bob@python.org"], language="es", entities=["ES_NIF", "EMAIL_ADDRESS"])[0] == [
        "NIF <ES_NIF>, <EMAIL_ADDRESS>"
    ]
    text = "Ruf 212-736-5031, Karte 4111 1111 1111 1111, bob@python.org"
    for language in ("de", "ja"):  # presidio has card numbers in four languages; they are no language's own
        assert run([text], language=language)[0] == ["Ruf <PHONE_NUMBER>, Karte <CREDIT_CARD>, <EMAIL_ADDRESS>"]
    with pytest.raises(UserError, match="unknown language 'qq'"):
        Pii(language="qq").check()


def test_spans_say_where_and_what_but_not_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_PII_KEY", "a key of many letters")
    actions = {"US_SSN": "remove", "EMAIL_ADDRESS": "pseudonym"}
    text = "é bob@python.org, 10.0.0.1 and 8.8.8.8, ssn 536-90-4399"
    (_, counts) = run([text, "nothing"], actions=actions)
    assert json.loads(str(counts[0]["spans"])) == [
        ["EMAIL_ADDRESS", 2, 16, "pseudonym"],
        ["IP_ADDRESS", 18, 26, "spared"],
        ["IP_ADDRESS", 31, 38, "mask"],
        ["US_SSN", 44, 55, "remove"],
    ]
    assert counts[1]["spans"] is None and (counts[0]["total"], counts[0]["spared"]) == (3, 1)


def test_counts_by_entity_and_another_key_is_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Pii(max_by_entity={"US_SSN": 0, "EMAIL_ADDRESS": 5})
    step.check()
    assert step.rules() == {"pii_us_ssn": "pii.us_ssn <= 0", "pii_email_address": "pii.email_address <= 5"}
    keyed = Pii(actions={"US_SSN": "pseudonym"})
    monkeypatch.setenv("GRISTMILL_PII_KEY", "one key")
    one = keyed.version
    monkeypatch.setenv("GRISTMILL_PII_KEY", "another key")
    assert keyed.version != one and "key" not in keyed.version and Pii().version == Pii(max_findings=1).version


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entities": ["EMAIL"]}, "unknown entity EMAIL; presidio has no recognizer"),
        ({"entities": []}, "`entities` is empty"),
        ({"entities": ["US_SSN", "US_SSN"]}, "twice"),
        ({"actions": {"URL": "mask"}}, "names URL"),
        ({"actions": {"US_SSN": "pseudonym"}, "key": "NO_SUCH_KEY"}, "environment variable NO_SUCH_KEY"),
        ({"actions": {"US_SSN": "pseudonym"}, "key": "the key=itself"}, "not the key itself"),
        ({"max_by_entity": {"URL": 1}}, "`max_by_entity` names URL"),
        ({"max_findings": -1}, "max_findings is -1"),
        ({"entities": ["TOTAL"]}, "cannot be named TOTAL"),
        ({"recognizers": ["nowhere.yaml"]}, "nowhere.yaml: cannot be read"),
    ],
)
def test_bad_configuration(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Pii(**options).check()  # type: ignore[arg-type]


def test_the_key_is_not_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_PII_KEY", "very-secret")
    step = Pii(actions={"US_SSN": "pseudonym"})
    step.open()
    assert b"very-secret" not in pickle.dumps(step) and "very-secret" not in repr(step)


def test_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    presidio_engine.analyzer_engine.cache_clear()
    assert ours(["bob@python.org"])[0] == [("EMAIL_ADDRESS", 0, 14, 1.0)]
