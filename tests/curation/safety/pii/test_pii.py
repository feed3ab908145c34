"""PII: presidio's findings span for span, what is done about them, and that nothing is left behind."""

from __future__ import annotations

import functools
import ipaddress
import json
import pickle
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.document import clean_text
from curation.safety.pii import presidio_engine
from curation.safety.pii.pii import DEFAULT, FINDING, Pii, analyze


def ours(texts: list[str | None], entities: tuple[str, ...] = DEFAULT) -> list[list[tuple[str, int, int, float]]]:
    found = analyze(pa.array(texts, pa.large_string()), entities)
    assert found.type == pa.list_(FINDING)
    return [sorted((f["entity"], f["start"], f["end"], f["score"]) for f in row) for row in found.to_pylist()]


def theirs(text: str) -> list[tuple[str, int, int, float]]:
    """presidio as it comes: its own registry, nothing of ours but a tldextract that opens no socket."""
    found = vanilla().analyze(text, language="en", entities=list(DEFAULT))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in found)


@functools.cache
def vanilla() -> Any:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider

    presidio_engine.engine("en")

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {"en": spacy.blank("en")}

    nlp = Blank(models=[{"lang_code": "en", "model_name": "blank"}])
    nlp.load()
    provider = RecognizerRegistryProvider(registry_configuration={"supported_languages": ["en"]})
    return AnalyzerEngine(nlp_engine=nlp, registry=provider.create_recognizer_registry(), supported_languages=["en"])


PARTS = [
    *("bob@python.org", "a.b+c@sub.example.co.uk", "x@y", "@", "me@пример.рф", "me@xn--80ak6aa92e.com", "a@b.c@d.org"),
    *("8.8.8.8", "10.0.0.1", "1.2.3.4/24", "256.1.1.1", "2001:4860:4860::8888", "fe:ed:be:ef:ca:fe:ba:be", "::1", "::"),
    *("ab::cd", "x[::2]", "::ffff:8.8.8.8", "1:2:3:4:5:6:7:8", "fe80::1%eth0", "C::D", "12:34:56"),
    *("212-555-5555", "(212) 555-5555", "+44 20 7946 0958", "+49 30 901820", "1640", "0049 30 901820", "٢١٢٥٥٥٥٥٥٥"),
    *(
        "２１２-５５５-５５５５",
        "555 5555 ext. 12",
        "212.555.5555 x99",
        "2008-11-13 12:45",
        "1/2/2003",
        "3 1/2",
        "030/901820",
    ),
    *(
        "4111 1111 1111 1111",
        "4111111111111111",
        "378282246310005",
        "536-90-4399",
        "536904399",
        "536 90 4399",
        "123-45-6789",
    ),
    *(
        "DE89370400440532013000",
        "gb42nawi04454264788619",
        "GB82 WEST 1234 5698 7654 32",
        "AB12",
        "ssn",
        "card",
        "phone:",
        "call",
    ),
    *(
        " ",
        " ",
        "\n",
        "\t",
        ",",
        ".",
        "(",
        ")",
        "-",
        "x",
        "é",
        "日本",
        "٣",
        "$",
        "%",
        "\u200b",
        "\xa0",
        "ext",
        "EXT",
        "ſ",
    ),
]
texts_ = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=25).map("".join),
    st.lists(st.sampled_from(PARTS), max_size=25).map(" ".join),
    st.text(alphabet="0123456789+-. ()/xX:ab@\n", max_size=60),
    st.text(alphabet="0123456789 -.()/[]x+#~ext;:=,%$é\u0301\u0663", min_size=6, max_size=60),
).map(clean_text)


@settings(max_examples=250, deadline=None)
@given(texts_)
@example("")
@example("+49 30 901820\n212-555-5555ab212-555-5555")
def test_findings_are_presidios(text: str) -> None:
    assert ours([text])[0] == theirs(text)


def test_findings_are_presidios_on_labelled_sentences(data: Path) -> None:
    sentences = [clean_text(s["full_text"]) for s in json.loads((data / "pii" / "synth_dataset_v2.json").read_text())]
    found = ours(list(sentences))
    assert sum(map(len, found)) > 250
    for text, f in zip(sentences, found, strict=True):
        assert f == theirs(text), text


def test_findings_are_presidios_on_crawled_pages(data: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    with open(data / "crawl" / "docs-02.warc.gz", "rb") as f:
        records = ArchiveIterator(f, record_types=WarcRecordType.response)
        pages = [r.reader.read().decode("utf-8", "replace") for r in records if "html" in (r.http_content_type or "")]
    texts = [clean_text(extract_plain_text(p)) for p in random.Random(3).sample(pages, 25)]
    found = ours(list(texts))
    for text, f in zip(texts, found, strict=True):
        assert f == theirs(text), text[:100]


def test_many_numbers_as_presidio_sees_them() -> None:
    """Where phonenumbers gives up after 65,535 tries, so do we."""
    dense = " ".join(f"{i:07d}x" for i in range(3_000))
    assert ours([dense])[0] == theirs(dense)


KINDS = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost")
KINDS += ("personal_number", "voip", "pager", "uan", "voicemail")


def test_how_few_digits_a_number_has() -> None:
    """What lets candidates of under seven digits be tried as German numbers alone."""
    import phonenumbers
    from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    from curation.safety.pii.phone_numbers import SHORTEST, SHORTEST_ELSEWHERE

    def shortest(region: str) -> int:
        descriptions = [getattr(phonenumbers.PhoneMetadata.metadata_for_region(region), k) for k in KINDS]
        return min(min(d.possible_length) for d in descriptions if d is not None and d.possible_length)

    regions = set(PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS) - {"DE"}
    codes = {phonenumbers.country_code_for_region(r) for r in regions}
    assert min(shortest(r) for c in codes for r in COUNTRY_CODE_TO_REGION_CODE[c]) >= SHORTEST_ELSEWHERE
    abroad = (shortest(r) + len(str(phonenumbers.country_code_for_region(r))) for r in phonenumbers.SUPPORTED_REGIONS)
    assert 2 + min(abroad) >= SHORTEST_ELSEWHERE  # 2: the shortest international prefix
    assert min(map(shortest, phonenumbers.SUPPORTED_REGIONS)) >= SHORTEST


def test_how_many_digits_a_number_has() -> None:
    """What lets candidates of more digits than LONGEST be left unparsed."""
    import re._parser as patterns

    import phonenumbers
    from phonenumbers import phonenumberutil
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    from curation.safety.pii.phone_numbers import LONGEST

    def width(pattern: str, without: int | None = None) -> int:
        """The most characters that the pattern matches, those of one group not counted."""

        def walk(parsed: object) -> None:
            if not isinstance(parsed, patterns.SubPattern):
                return
            for i, (op, value) in enumerate(parsed.data):
                if op is patterns.SUBPATTERN and value[0] == without:
                    parsed.data[i] = (patterns.MIN_REPEAT, (0, 0, value[3]))
                else:
                    for v in value if isinstance(value, tuple) else ():
                        for w in v if isinstance(v, list) else [v]:
                            walk(w)
            parsed.width = None

        tree = patterns.parse(pattern)
        walk(tree)
        return int(tree.getwidth()[1])

    of = phonenumbers.PhoneMetadata
    everywhere = [of.metadata_for_region(r) for r in phonenumbers.SUPPORTED_REGIONS]
    everywhere += [of.metadata_for_nongeo_region(c) for c in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS]
    stripped = 0
    for m in everywhere:
        if m.national_prefix_for_parsing:
            kept = [int(g) for g in re.findall(r"\\(\d)", m.national_prefix_transform_rule or "")]
            stripped = max(stripped, width(m.national_prefix_for_parsing, kept[0] if kept else None))
    assert stripped == 7
    abroad = max(
        width(of.metadata_for_region(r).international_prefix) for r in PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS
    )
    assert phonenumberutil._MAX_LENGTH_FOR_NSN + phonenumberutil._MAX_LENGTH_COUNTRY_CODE + abroad + stripped == LONGEST


def test_long_chunks_and_long_texts() -> None:
    chunk = "a" * 30_000 + ".bob@python.org" + "/x" * 30_000
    found = ours([chunk, "z" * 10_000_000 + " bob@python.org"])
    assert any(e == "EMAIL_ADDRESS" for e, *_ in found[0])
    assert found[1] == [("EMAIL_ADDRESS", 10_000_001, 10_000_015, 1.0)]


def test_other_entities_go_by_overlapping_windows() -> None:
    filler = "word " * 199_799
    text = filler + "see https://www.python.org/downloads now " + filler + "https://docs.python.org end"
    assert len(text) > 1_000_000
    found = ours([text], ("URL",))[0]
    assert [text[s:e] for _, s, e, _ in found] == ["https://www.python.org/downloads", "https://docs.python.org"]


def test_rows_nulls_and_slices() -> None:
    texts = pa.array(["no", "bob@python.org", None, "é 8.8.8.8"], pa.large_string())
    found = analyze(texts, ["EMAIL_ADDRESS", "IP_ADDRESS"]).to_pylist()
    assert [len(f) for f in found] == [0, 1, 0, 1]
    assert found[3][0] == {"entity": "IP_ADDRESS", "start": 2, "end": 9, "score": 0.6}
    assert analyze(texts.slice(3), ["IP_ADDRESS"]).to_pylist() == found[3:]
    assert [f["entity"] for f in analyze(texts, ["IP_ADDRESS"]).to_pylist()[1]] == []
    with pytest.raises(UserError, match="no entity NONSENSE"):
        analyze(texts, ["NONSENSE"])


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


def test_code_is_left_alone(data: Path) -> None:
    import sysconfig

    lines = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]:
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    texts, _ = run(["\n".join(lines)])
    new = str(texts[0]).splitlines()
    touched = sum(a != b for a, b in zip(lines, new, strict=True))
    assert len(lines) > 20_000 and touched <= len(lines) / 1000


def test_stand_ins_are_well_formed_consistent_and_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_PII_KEY", "a key of many letters")
    actions = dict.fromkeys(DEFAULT, "pseudonym")
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


def test_remove_and_drop_above_a_count() -> None:
    assert run(["a bob@python.org b"], actions={"EMAIL_ADDRESS": "remove"})[0] == ["a  b"]
    assert Pii(max_findings=5).rules() == {"pii_count": "pii.total <= 5"}
    assert Pii().rules() == {}


def test_overlapping_findings_leave_nothing_standing() -> None:
    from curation.safety.pii.actions import settle

    assert settle([(0, 5, "A", 0.5), (3, 9, "B", 0.9), (8, 10, "C", 0.4), (12, 14, "D", 1.0)]) == [
        (0, 10, "B", 0.9),
        (12, 14, "D", 1.0),
    ]
    assert settle([(0, 5, "B", 0.5), (0, 5, "A", 0.5)]) == [(0, 5, "A", 0.5)]


OWN = """
recognizers:
  - name: employee numbers
    supported_entity: EMPLOYEE_ID
    supported_language: en
    patterns:
      - {name: number, regex: '\\bE-[0-9]{6}\\b', score: 0.6}
    context: [employee]
  - name: projects
    supported_entity: PROJECT
    supported_languages: [en, de]
    deny_list: [Bluebird, Redstart]
  - {name: unused, enabled: false, supported_entity: UNUSED, deny_list: [x]}
"""


def test_own_recognizers(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    options = {"recognizers": [str(tmp_path / "own.yaml")], "entities": ["EMAIL_ADDRESS", "EMPLOYEE_ID", "PROJECT"]}
    step = Pii(**options)  # type: ignore[arg-type]
    assert step.inputs() == (str(tmp_path / "own.yaml"),)
    texts, counts = run(["E-123456 of bluebird, bob@python.org, E-12"], **options)
    assert texts == ["<EMPLOYEE_ID> of <PROJECT>, <EMAIL_ADDRESS>, E-12"]
    assert (counts[0]["employee_id"], counts[0]["project"], counts[0]["email_address"]) == (1, 1, 1)
    german, _ = run(["E-123456 of Bluebird"], **(options | {"language": "de", "entities": ["PROJECT"]}))
    assert german == ["E-123456 of <PROJECT>"]
    long = "word " * 250_000
    assert run([f"{long}E-123456 {long}Redstart"], **options)[0] == [f"{long}<EMPLOYEE_ID> {long}<PROJECT>"]
    with pytest.raises(UserError, match="unknown entity EMPLOYEE_ID"):
        Pii(**(options | {"language": "de"})).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("recognizers: [", "line 1: no YAML"),
        ("recognizers: []", "a list `recognizers` was expected"),
        ("- name: x", "a list `recognizers` was expected"),
        ("recognizers: [7]", r"recognizers\[0\]: is 7"),
        ("recognizers: [{name: x, supported_entity: A, patern: []}]", "unknown key patern"),
        ("recognizers: [{name: x, supported_entity: A}]", "needs `patterns` or a `deny_list`"),
        ("recognizers: [{supported_entity: A, deny_list: [x]}]", "needs a `name`"),
        ("recognizers: [{name: x, supported_entity: a b, deny_list: [x]}]", "capital letters"),
        ("recognizers: [{name: x, supported_entity: A, deny_list: x}]", "a list of strings was expected"),
        ("recognizers: [{name: x, supported_entity: A, deny_list: [x], deny_list_score: 60}]", "is 60"),
        ("recognizers: [{name: x, type: predefined, supported_entity: A}]", "naming their entity"),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{regex: a, score: 1}]}]",
            "keys name, regex and score",
        ),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{name: p, regex: '(', score: 1}]}]",
            "does not compile",
        ),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{name: p, regex: 'a*', score: 1}]}]",
            "matches nothing at all",
        ),
    ],
)
def test_bad_recognizers_are_refused(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(written)
    with pytest.raises(UserError, match=message):
        Pii(recognizers=[str(tmp_path / "own.yaml")], entities=["A"]).check()


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


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline that knows three names."""
    import spacy

    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    names = {"PERSON": "Jane Roe", "GPE": "Ulan Bator", "SHIP": "Nautilus"}
    ruler.add_patterns([{"label": label, "pattern": name} for label, name in names.items()])
    folder = tmp_path_factory.mktemp("ner") / "names"
    nlp.to_disk(folder)
    return folder


def test_names_by_a_spacy_pipeline(pipeline: Path) -> None:
    entities = ["EMAIL_ADDRESS", "PERSON", "LOCATION", "SHIP"]
    step = Pii(entities=entities, ner=str(pipeline))
    assert step.inputs() == (str(pipeline),)
    text = "Jane Roe of Ulan Bator (jane@python.org) sails on the Nautilus."
    texts, counts = run([text], entities=entities, ner=str(pipeline))
    assert texts == ["<PERSON> of <LOCATION> (<EMAIL_ADDRESS>) sails on the <SHIP>."]
    assert json.loads(str(counts[0]["spans"]))[0] == ["PERSON", 0, 8, "mask"]
    whole = "word " * 250_000 + text
    assert str(run([whole], entities=entities, ner=str(pipeline))[0][0]).endswith("<PERSON> of" + texts[0][11:])
    assert run([text])[0] == [text.replace("jane@python.org", "<EMAIL_ADDRESS>")]  # off by default


def test_pipelines_that_are_not_there(pipeline: Path, tmp_path: Path) -> None:
    cases = {
        "PERSON needs a spaCy pipeline: install one": Pii(entities=["PERSON"]),
        "en_core_web_sm is not here: install it on every machine": Pii(entities=["PERSON"], ner="en_core_web_sm"),
        "there is no such folder": Pii(entities=["PERSON"], ner=str(tmp_path / "none")),
        "does not load": Pii(entities=["PERSON"], ner=str(tmp_path)),
        "is of language 'en'": Pii(entities=["PERSON"], ner=str(pipeline), language="de"),
        "unknown entity ORGANIZATION": Pii(entities=["ORGANIZATION"], ner=str(pipeline)),
    }
    for message, step in cases.items():
        with pytest.raises(UserError, match=message):
            step.check()


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
    ("string", "scrubbed"),
    [
        ("https://a.org/?tel=212-736-5031&x=%2F", "https://a.org/?tel=<PHONE_NUMBER>&x=%2F"),
        ("https://a.org/?card=4111+1111+1111+1111&x=1", "https://a.org/?card=<CREDIT_CARD>&x=1"),
        ("https://a.org/?card=4111%201111%201111%201111", "https://a.org/?card=<CREDIT_CARD>"),
        (r"ValueError: 'call\n212-736-5031\nnow'", r"ValueError: 'call\n<PHONE_NUMBER>\nnow'"),
        (r'"a\u0020bob\u0040python.org"', r'"a\u0020<EMAIL_ADDRESS>"'),
        ("write to bob&#64;python.org", "write to <EMAIL_ADDRESS>"),
        ("100% sure, 50%25 \\ &#0; &#xD800; %zz", "100% sure, 50%25 \\ &#0; &#xD800; %zz"),
        ("https://a.org/caf%C3%A9+au?lait=%FF%C3", "https://a.org/caf%C3%A9+au?lait=%FF%C3"),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
        ('{"a@python.org": 1, "b@python.org": 2}', '{"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS>\'": 2}'),
    ],
)
def test_strings_that_are_not_prose(string: str, scrubbed: str) -> None:
    assert Pii().scrub(pa.array([string, None])).to_pylist() == [scrubbed, None]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="%40C3A\\nux&#;+?:/é@.b ", max_size=40))
def test_decoding_keeps_places(string: str) -> None:
    from curation.safety.pii.structured_strings import decoded

    found = decoded(string)
    if found is not None:
        text, places = found
        assert len(places) == len(text) + 1 and places == sorted(places) and places[-1] == len(string)
    assert Pii().scrub(pa.array([string])).to_pylist()[0] is not None


def test_a_score_is_no_telephone_number() -> None:
    """What a rule looked at is stored as JSON, and a score has as many digits as a card."""
    scores = ['{"language.score":0.9673650860786438}', '{"x":415.5552671,"y":[-0.4111111111111111,1e300,NaN]}']
    assert Pii().scrub(pa.array(scores)).to_pylist() == scores
    assert Pii().scrub(pa.array(['{"x":12125555555.0}'])).to_pylist() != ['{"x":12125555555.0}']


def test_scrub() -> None:
    step = Pii()
    strings = [
        "https://python.org/?mail=bob%40python.org",
        "https://example.com/a%40b?x=%41",
        '{"title": "\\nbob@python.org", "ids": [12125555555, 7, null, true], "bob@python.org": {"a": "plain"}}',
        '{"title":"plain"}',
        "{broken bob@python.org}",
        None,
    ]
    for kind in (pa.string(), pa.large_string()):
        out = step.scrub(pa.array(strings, kind))
        assert out.type == kind
        url, harmless, meta, same, broken, null = out.to_pylist()
        assert "bob" not in url + meta + broken and "<EMAIL_ADDRESS>" in url and "<EMAIL_ADDRESS>" in broken
        assert (harmless, same, null) == (strings[1], strings[3], None)
        assert json.loads(meta) == {
            "title": "\n<EMAIL_ADDRESS>",
            "ids": ["<PHONE_NUMBER>", 7, None, True],
            "<EMAIL_ADDRESS>": {"a": "plain"},
        }


def test_scrubbing_twice_changes_nothing() -> None:
    once, _ = run(["bob@python.org 212-555-5555 8.8.8.8 DE89370400440532013000"])
    assert run(once)[0] == once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entities": ["EMAIL"]}, "unknown entity EMAIL; presidio knows"),
        ({"entities": []}, "`entities` is empty"),
        ({"entities": ["US_SSN", "US_SSN"]}, "twice"),
        ({"actions": {"URL": "mask"}}, "speaks of URL"),
        ({"actions": {"US_SSN": "pseudonym"}, "key": "NO_SUCH_KEY"}, "environment variable NO_SUCH_KEY"),
        ({"actions": {"US_SSN": "pseudonym"}, "key": "the key=itself"}, "not the key itself"),
        ({"max_by_entity": {"URL": 1}}, "`max_by_entity` speaks of URL"),
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
    presidio_engine.engine.cache_clear()
    assert ours(["bob@python.org"])[0] == [("EMAIL_ADDRESS", 0, 14, 1.0)]
