"""Nothing that was masked is left anywhere: values planted wherever a crawl can hold them, and the whole run searched.

Text, URL, title, headers, field names, broken gzip, bad WARC headers, bad JSON lines, errors of steps that quote the
text they fail on: in every file below the run directory, compressed ones opened, in the report, in what explain says.

Covers: curation/engine/tasks/scrub.py
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.engine.execution.executors import RunFailed
from curation.engine.results import explain
from curation.storage import Storage
from pipelines.report.write_report import write_report
from tests.curation.engine import runs

VALUES = {
    "EMAIL_ADDRESS": "jane.roe77@python.org",
    "IP_ADDRESS": "93.184.215.77",
    "IPV6": "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
    "PHONE_NUMBER": "212-736-5031",
    "CREDIT_CARD": "4485 2755 1287 4136",
    "IBAN_CODE": "DE89 3704 0044 0532 0130 00",
    "US_SSN": "536-90-4399",
}
ALL = ", ".join(VALUES.values())
KEY = "a-key-that-nobody-may-find-93"
PROSE = "The miller grinds the corn of the village, and the wheel turns in the brook. Page {}: "

STEPS = '''
import errno
from dataclasses import dataclass
import pyarrow as pa
from curation.document import with_column
from curation.step import MapStep

@dataclass(frozen=True)
class Copies(MapStep):
    """Signals that hold the text as it comes: a string, a list, numbers as words; fails on some texts, quoting them."""
    name: str = "copies"
    breaks: str = "quotes what it fails on"
    system: bool = False

    @property
    def signals(self):
        return pa.schema([("text", pa.string()), ("parts", pa.list_(pa.string())), ("long", pa.large_string())])

    def __call__(self, batch):
        texts = batch.column("text").to_pylist()
        for text in texts:
            if self.breaks in text:
                if self.system:
                    raise OSError(errno.EIO, text)
                try:
                    raise KeyError(text)
                except KeyError as error:
                    raise ValueError("x" * 250 + f" cannot do {text!r}") from error
        parts = [None if i % 3 == 2 else t.split(", ") for i, t in enumerate(texts)]
        arrays = [pa.array(v, f.type) for v, f in zip([texts, parts, texts], self.signals)]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))
'''


def html(number: int, title: str, body: str) -> bytes:
    page = f"<html lang='en {ALL}'><head><title>{title}</title></head><body><p>{PROSE.format(number)}{body}</p>"
    return (page + "<p>" + "The brook is deep and the wheel is old. " * 5 + "</p></body></html>").encode()


def response(number: int, body: bytes, *, uri: str = "", http: str = "HTTP/1.1 200 OK", more: str = "") -> bytes:
    payload = f"{http}\r\nContent-Type: text/html; charset={VALUES['EMAIL_ADDRESS']}\r\n{more}\r\n".encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:{VALUES['EMAIL_ADDRESS']}:{number}>\r\n"
        f"WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Target-URI: {uri or f'https://mill.org/{number}'}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload + b"\r\n\r\n"


def write_input(folder: Path) -> None:
    mail, phone, card = VALUES["EMAIL_ADDRESS"], VALUES["PHONE_NUMBER"], VALUES["CREDIT_CARD"]
    quoted = mail.replace("@", "%40")
    rows: list[dict[str, Any]] = []
    for i in range(12):
        rows.append({"text": PROSE.format(i) + ALL, "url": f"https://mill.org/t/{i}?mail={quoted}&tel={phone}"})
    for kind, value in VALUES.items():
        text = PROSE.format(kind) + f"write to {value} now.\n{value}\nand so on"
        rows.append({"text": text, "title": f"of {value}", "number": "".join(filter(str.isdigit, value))})
        rows.append({"text": text + " again", "url": f"https://mill.org/{value}?card={card.replace(' ', '+')}"})
    rows.append({"text": PROSE.format("k"), mail: {"tel": int(phone.replace("-", "")), "deep": [[mail], {"a": ALL}]}})
    rows.append({"text": PROSE.format("d") + " is dropped before it is scrubbed " + ALL})
    rows.append({"text": PROSE.format("q") + f" quotes what it fails on\n{phone}\n{ALL}"})
    rows.append({"text": 7, "url": f"https://{mail}/"})
    rows.append({"no text": ALL, "url": None})
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows)]
    lines += [f'{{"text": "{ALL}', ALL, f'["{ALL}"]', f'{{"text": "{mail}\\x"}}', f'"{mail}"']
    (folder / "texts").mkdir()
    (folder / "texts" / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    packed = gzip.compress("\n".join(lines[:8]).encode())
    (folder / "texts" / "b.jsonl.gz").write_bytes(packed[:-40] + ALL.encode() + bytes(30))
    (folder / "texts" / "c.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00" + ALL.encode() * 3)
    (folder / "crawl").mkdir()
    good = [response(i, html(i, f"Title {ALL}", ALL)) for i in range(4)]
    bad = [
        response(10, html(10, "a", ALL), uri=f"https://mill.org/?{quoted}={phone}"),
        response(11, html(11, "b", ALL), http=f"NOT HTTP {ALL}"),
        response(12, html(12, "c", ALL), http="HTTP/1.1 404 Not Found", more=f"X-From: {ALL}\r\n"),
        response(13, html(13, "d", ALL), more=f"Transfer-Encoding: chunked\r\nContent-Language: {mail}\r\n"),
        response(14, html(14, "e", ALL), more=f"Content-Encoding: gzip\r\nLast-Modified: {ALL}\r\n"),
        response(15, html(15, "f", ALL)).replace(b"text/html;", f"{mail}/{phone};".encode(), 1),
        response(16, html(16, "g", ALL)).replace(b"WARC-Type: response", f"WARC-Type: {mail}".encode(), 1),
        re.sub(
            rb"Content-Length: \d+",
            f"Content-Length: {phone} {mail}".encode(),
            response(17, html(17, "h", ALL)),
            count=1,
        ),
        f"WARC/1.0\r\n{ALL}\r\n{mail}: {phone}\r\n\r\n{ALL}\r\n\r\n".encode(),
    ]
    (folder / "crawl" / "a.warc").write_bytes(b"".join([*good[:2], *bad, *good[2:]]))
    members = [gzip.compress(r) for r in good]
    (folder / "crawl" / "b.warc.gz").write_bytes(members[0] + ALL.encode() + members[1] + members[2][:-20])
    (folder / "crawl" / "c.warc").write_bytes(f"{mail} {ALL}\n".encode() * 20)
    (folder / "tables").mkdir()
    (folder / "tables" / "a.parquet").write_bytes(ALL.encode() * 5)
    table = pa.table({"text": [PROSE.format("p") + ALL] * 3, f"a column {mail}": [ALL, None, card]})
    pq.write_table(table, folder / "tables" / "b.parquet")
    (folder / "steps.py").write_text(STEPS)


def pipeline(folder: Path, **pii: Any) -> dict[str, Any]:
    return {
        "name": "planted",
        "sources": [
            {"name": "texts", "read": "text", "root": "texts", "path": "*.jsonl*"},
            {"name": "crawl", "read": "warc", "root": "crawl", "path": "*"},
            {"name": "tables", "read": "text", "root": "tables", "path": "*.parquet"},
        ],
        "steps": [
            "extract",
            {
                f"{folder}/steps.py:Copies": {},
                "keep": {"raw": "copies.text NOT LIKE '%is dropped before%'"},
            },
            {"pii": pii, "keep": {"few": "pii.total < 60"}},
            {
                f"{folder}/steps.py:Copies": {"name": "after", "breaks": "Page 11"},
                "keep": {"late": "text NOT LIKE '%Page 5:%' AND after.text NOT LIKE '%Page 6%'"},
            },
            "exact_dedup",
            {"minhash_dedup": {"threshold": 0.9}},
        ],
        "tokenizer": {"train": {"kind": "bpe", "vocab": 400}},
        "validation": 0.1,
        "engine": {"batch_rows": 8, "task_bytes": 4096},
    }


def needles() -> list[str]:
    """Every value as it was planted, percent-encoded, in lower case and without its separators."""
    out = set()
    for value in VALUES.values():
        # nine bare digits are a US_SSN to presidio with a score of 0.05: those are left alone on purpose
        bare = value if value == VALUES["US_SSN"] else re.sub(r"[ -]", "", value)
        for v in (value, bare, value.replace(" ", "+"), value.replace("@", "%40"), value.replace("@", "\\u0040")):
            out |= {v, v.lower(), v.upper()}
    return sorted(out)


def contents(path: Path) -> Iterator[str]:
    """What a file says: its bytes, and, where it is compressed or encoded, all that is in it."""
    data = path.read_bytes()
    yield data.decode("utf-8", "replace")
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data).decode("utf-8", "replace")
    elif data[:4] == b"PAR1":
        table = pq.read_table(path)
        yield json.dumps(table.to_pylist(), default=str, ensure_ascii=False)
        yield str(pq.read_metadata(path).metadata) + str(pq.read_schema(path))
    elif data[:6] == b"ARROW1":
        from tokenizers import Tokenizer

        shard = pa.ipc.open_file(pa.OSFile(str(path))).read_all()
        yield json.dumps(shard.drop_columns(["tokens"]).to_pylist(), default=str, ensure_ascii=False) + str(
            shard.schema
        )
        tokenizer = Tokenizer.from_file(
            str(next(p / "result" for p in path.parents if (p / "run.json").exists()) / "shards" / "tokenizer.json")
        )
        for tokens in shard.column("tokens").to_pylist():
            yield tokenizer.decode(tokens, skip_special_tokens=False)


def leaks(folder: Path, extra: dict[str, str] | None = None, more: list[str] | None = None) -> list[str]:
    wanted = re.compile("|".join(map(re.escape, [*needles(), *(more or [])])))
    found = []
    said = [(str(p.relative_to(folder)), c) for p in sorted(folder.rglob("*")) if p.is_file() for c in contents(p)]
    for name, content in [*said, *(extra or {}).items()]:
        found += [f"{name}: ...{content[max(0, m.start() - 60) : m.end() + 20]}" for m in wanted.finditer(content)][:3]
    return found


def explained(run_dir: Path) -> dict[str, str]:
    ids = ledger_ids(run_dir)
    return {f"explain {i}": json.dumps(explain.explain(str(run_dir), i), default=str, ensure_ascii=False) for i in ids}


def ledger_ids(run_dir: Path) -> list[str]:
    return [i.hex() for i in explain.ledger(str(run_dir), ["doc_id"]).column("doc_id").to_pylist()]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: Ray's sockets, 100 characters at most, may lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="pl", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("executor", "action"),
    [
        ("inline", "mask"),
        ("inline", "pseudonym"),
        pytest.param("ray", "pseudonym", marks=pytest.mark.slow),  # which masks too, and has a key to keep
        pytest.param("ray", "mask", marks=pytest.mark.nightly),
    ],
)
def test_nothing_masked_is_left(
    short: Path, executor: str, action: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_input(short)
    run = short / "run"
    pii: dict[str, Any] = {}
    if action == "pseudonym":
        monkeypatch.setenv("GRISTMILL_PII_KEY", KEY)
        pii["actions"] = dict.fromkeys([k for k in VALUES if k != "IPV6"], "pseudonym")
    if executor == "ray":
        monkeypatch.setenv("RAY_TMPDIR", str(run))  # its logs then lie below the run
        run.mkdir()
    made = runs.curate(
        short, pipeline(short, **pii), executor=executor, allow_missing=True, allow_unreadable=True, workers=1
    )
    assert made.exit_code == 3 and len(made.quarantined) >= 3
    write_report(str(run))
    monkeypatch.delenv("GRISTMILL_PII_KEY", raising=False)
    write_report(str(run), str(run / "elsewhere.html"))  # without the key, texts that would need it are not shown
    assert executor == "inline" or any(run.glob("ray/session_*/logs/*"))
    counts = {(c["step"], c["rule"]): c["dropped"] for c in made.counts["steps"]}
    assert counts["copies", "raw"] == 1 and counts["after", "late"] >= 1 and counts["read", "poison"] >= 2
    assert counts["read", "unreadable"] >= 8 and made.counts["kept"] >= 15
    rows = ledger(run)
    assert sum(r["pii"]["total"] for r in rows if r["pii"]) >= 100
    assert leaks(run, explained(run) | {"output": "".join(capfd.readouterr())}, [KEY]) == []


def ledger(run: Path) -> list[dict[str, Any]]:
    return explain.ledger(str(run)).to_pylist()


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_nothing_is_left_by_a_run_that_fails(short: Path, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose error says nothing about the record (here: of the operating system) ends the run."""
    write_input(short)
    run = short / "run"
    if executor == "ray":
        monkeypatch.setenv("RAY_TMPDIR", str(run))
        run.mkdir()
    tree = pipeline(short)
    tree["steps"][1][f"{short}/steps.py:Copies"] = {"system": True}
    with pytest.raises(RunFailed) as caught:
        runs.curate(short, tree, executor=executor, allow_missing=True, allow_unreadable=True, workers=1)
    failed = [json.loads(line) for line in (run / "log" / "events.jsonl").read_text().splitlines()]
    assert any(e["event"] == "failed" and "<EMAIL_ADDRESS>" in e["reason"] for e in failed)
    assert leaks(run, {"message": str(caught.value)}) == []


def test_the_test_can_fail(short: Path) -> None:
    """Without the step, everything planted is found: in parquet, partition files, the report."""
    write_input(short)
    tree = pipeline(short)
    tree["steps"] = ["extract", "exact_dedup"]
    runs.curate(short, tree, allow_missing=True, allow_unreadable=True)
    write_report(str(short / "run"))
    found = leaks(short / "run")
    assert {f.partition("/")[0] for f in found} >= {"cache", "result"} and any("report.html" in f for f in found)
    assert any(".part:" in f for f in found) and any("shards" in f for f in found)
    assert os.environ.get("GRISTMILL_PII_KEY") is None and Storage(str(short / "run")).exists("run.json")
