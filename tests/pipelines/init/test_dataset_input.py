"""`gristmill init` over a Hugging Face dataset, in a folder and on the hub, and over the forms that text files have.

Covers: dataset_card.py, text_forms.py
"""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.init import text_forms
from pipelines.init.file_groups import make_reader
from pipelines.init.scan_input import scan_inputs
from tests.curation.engine import runs
from tests.curation.sources.text import hub_stub
from tests.pipelines.init.test_init import text

DESCRIPTION = "description of a Hugging Face dataset"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats alone: what is sampled of documents is tested in test_init.py, and compiles kernels for ten seconds."""
    monkeypatch.setattr("pipelines.init.scan_input.measure_groups", lambda *_: None)


@pytest.mark.slow
def test_init_and_a_run_over_the_hub_write_no_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gristmill: Any
) -> None:
    with hub_stub.serve(monkeypatch) as hub:
        _init_and_curate(hub, tmp_path, gristmill)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert written and not [p for p in written if hub_stub.TOKEN.encode() in p.read_bytes()]


def _init_and_curate(hub: hub_stub.Hub, tmp_path: Path, gristmill: Any) -> None:
    code, out, err = gristmill("init", "hf://datasets/mills/flour", "-o", tmp_path / "a.yaml", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert {(s["format"], tuple(s["patterns"])) for s in answer["sources"]} == {
        ("parquet", ("**/*.parquet",)), ("jsonl", ("**/*.jsonl",)),
    }  # fmt: skip
    assert answer["left_out"]["description of a Hugging Face dataset"] == ["hf://datasets/mills/flour/README.md"]
    assert "licence: odc-by" in (tmp_path / "a.yaml").read_text()
    source = {"name": "hub", "read": "text", "root": "hf://datasets/mills/flour", "path": "**/*.[jp]*"}
    done = runs.curate(tmp_path, {"name": "hub", "sources": [source], "steps": []}, "run")
    assert done.counts["read"]["records"] == done.counts["kept"] == 60
    asked = {authorization for _, path, authorization in hub.requests if "/datasets/" in path}
    assert asked == {f"Bearer {hub_stub.TOKEN}"}


RECORDS = [{"doc": {"story": text(i), "n": i}, "link": f"https://a.example/{i}"} for i in range(40)]


def table(delimiter: str, header: bool = True) -> str:
    rows = [f'{i}{delimiter}"{text(i)}, and\n""more"""{delimiter}https://a.example/{i}\n' for i in range(40)]
    return (f"n{delimiter}body{delimiter}link\n" if header else "") + "".join(rows)


NESTED = {"text": "doc.story", "url": "link"}
FORMS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "array": ("a.json", json.dumps(RECORDS), NESTED, 40),
    "objects": ("a.json", "\n".join(json.dumps(r, indent=1) for r in RECORDS), NESTED, 40),
    "one object": ("a.json", json.dumps(RECORDS[0], indent=1), NESTED, 1),
    "array in .txt": ("a.txt", json.dumps(RECORDS), {"text": "doc.story", "url": "link", "format": "json"}, 40),
    "lines in .json": ("a.json", "".join(json.dumps(r) + "\n" for r in RECORDS), NESTED, 40),
    "csv": ("a.csv", table(","), {"text": "body", "url": "link"}, 40),
    "semicolons": ("a.csv", table(";"), {"text": "body", "url": "link", "delimiter": ";"}, 40),
    "tabs in .csv": ("a.csv", table("\t"), {"text": "body", "url": "link", "delimiter": "\t"}, 40),
    "no header": (
        "a.csv", table(",", False),
        {"text": "column_2", "url": "column_3", "columns": ["column_1", "column_2", "column_3"]}, 40,
    ),
    "tsv": ("a.tsv", table("\t"), {"text": "body", "url": "link"}, 40),
    "csv in .txt": ("a.txt", table(","), {"text": "body", "url": "link", "format": "csv"}, 40),
    "markers": ("a.txt", "<|endoftext|>".join(text(i) for i in range(40)), {"marker": "<|endoftext|>"}, 40),
    "blank lines": ("a.txt", "\n\n".join(text(i) for i in range(40)), {"document": "blank_lines"}, 40),
    "lines": ("a.txt", "\n".join(text(i) for i in range(40)), {"document": "line"}, 40),
    "a book": ("a.txt", "\n\n".join(text(i) for i in range(10)), {}, 1),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_recognised_and_its_options_read_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curation.sources.text.text import TextReader
    from curation.step import InputSplit
    from pipelines.init.draft_pipeline import draft_pipeline
    from pipelines.init.file_groups import reader_options

    monkeypatch.setattr(text_forms, "MAX_BOOK", 10_000)
    name, content, options, count = FORMS[form]
    (tmp_path / name).write_text(content)
    scan = scan_inputs([str(tmp_path)])
    (group,) = scan.groups
    assert reader_options(group) == options and not scan.left_out
    (source,) = yaml.safe_load(draft_pipeline(scan, "x", str(tmp_path)))["sources"]
    assert {k: v for k, v in source.items() if k in options} == options
    piece = InputSplit(name, len(content), "")
    rows = [
        row
        for batch in TextReader(**options).read(piece, str(tmp_path), collection="c", domain="d", rows=64)
        for row in batch.to_pylist()
    ]
    assert len(rows) == count and all(len(row["text"]) > 100 and row["drop"] is None for row in rows)


def test_a_dataset_that_was_saved_to_a_folder(tmp_path: Path) -> None:
    import pyarrow as pa

    folder = tmp_path / "saved"
    folder.mkdir()
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", pa.schema([("text", pa.string())])) as writer:
        writer.write_batch(pa.record_batch({"text": [text(i) for i in range(20)]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"text": {"dtype": "string"}}}, indent=2))
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}, indent=2)
    )
    (folder / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n# About\n")
    scan = scan_inputs([str(folder)])
    (group,) = scan.groups
    assert (group.format.form, group.licence, len(scan.left_out[DESCRIPTION])) == ("arrow", "mit, apache-2.0", 3)


def test_a_readme_without_a_card_is_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n\n" + text(1))
    (tmp_path / "state.json").write_text(json.dumps({"text": text(2)}))
    assert {f.path for g in scan_inputs([str(tmp_path)]).groups for f in g.files} == {"README.md", "state.json"}


def test_a_dump_of_stack_exchange(tmp_path: Path) -> None:
    row = '<row Id="{0}" PostTypeId="1" CreationDate="2020-01-01T00:00:00" Body="&lt;p&gt;{1}&lt;/p&gt;" Title="T" />'
    rows = "\n".join(row.format(i, text(i)) for i in range(30))
    (tmp_path / "Posts.xml").write_text(f'\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n{rows}\n</posts>')
    (tmp_path / "Votes.xml").write_text('<?xml version="1.0" encoding="utf-8"?>\n<votes>\n<row Id="1" />\n</votes>')
    scan = scan_inputs([str(tmp_path)])
    (group,) = scan.groups
    assert (group.format.read, group.patterns) == ("stackexchange", ["Posts.xml"])
    assert type(make_reader(group)).__name__ == "StackExchangeReader"
    assert list(scan.left_out) == ["another table than Posts.xml of a Stack Exchange dump"]


def test_books_of_project_gutenberg(tmp_path: Path) -> None:
    from tests.curation.sources.books.test_gutenberg import WHOLE

    (tmp_path / "1234-0.txt").write_text(WHOLE)
    (tmp_path / "letter.txt").write_text("A letter about Project Gutenberg.\n\n" + text(1))
    read_as = {g.format.read: g.patterns for g in scan_inputs([str(tmp_path)]).groups}
    assert read_as == {"gutenberg": ["1234-0.txt"], "text": ["letter.txt"]}


def test_dumps_of_a_wiki(tmp_path: Path) -> None:
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">\n'
    page = "<page><title>Mill</title><ns>0</ns><id>1</id><revision><text>A [[mill]].</text></revision></page>\n"
    dump = f"{head}{page}</mediawiki>"
    (tmp_path / "dewiki-pages-articles1.xml.bz2").write_bytes(bz2.compress(dump.encode()))
    (tmp_path / "export.xml").write_text(dump, "utf-16")
    (tmp_path / "dewiki-pages-logging.xml").write_text(f"{head}<logitem><id>1</id></logitem>\n</mediawiki>")
    (tmp_path / "multistream-index.txt.bz2").write_bytes(bz2.compress(b"600:1:Mill\n600:2:Corn: a novel\n"))
    scan = scan_inputs([str(tmp_path)])
    (group,) = scan.groups
    assert (group.format.read, sum(map(len, scan.left_out.values()))) == ("wikipedia", 2)
    assert type(make_reader(group)).__name__ == "WikipediaReader"


def test_epub_books(tmp_path: Path) -> None:
    from tests.curation.sources.books.test_epub import FILES, archive

    (tmp_path / "book.epub").write_bytes(archive(FILES))
    (tmp_path / "files.zip").write_bytes(archive({"a.txt": "text"}))
    scan = scan_inputs([str(tmp_path)])
    (group,) = scan.groups
    assert (group.format.read, group.patterns, list(scan.left_out)) == ("epub", ["**/*.epub"], ["application/zip"])
    assert type(make_reader(group)).__name__ == "EpubReader"


def test_latex_submissions_and_folders(tmp_path: Path) -> None:
    from tests.curation.sources.latex.test_latex import FILES, SOUND, tar

    (tmp_path / "2401.00001.tar.gz").write_bytes(SOUND)
    (tmp_path / "arXiv_src_2401_001.tar").write_bytes(tar({"2401/2401.00001.gz": SOUND}))
    (tmp_path / "2401.00002.gz").write_bytes(gzip.compress(FILES["main.tex"].encode()))
    (tmp_path / "third.tex").write_text(FILES["third.tex"])
    (tmp_path / "other.tar").write_bytes(tar({"a.txt": "text"}))
    scan = scan_inputs([str(tmp_path)])
    read_as = {g.format.read for g in scan.groups if "other" not in str(g.patterns)}
    assert "latex" in read_as
    (group,) = [g for g in scan.groups if g.format.read == "latex"]
    assert type(make_reader(group)).__name__ == "LatexReader" and len(group.files) == 4


def test_repositories_of_code(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.curation.sources.code.test_code import COLUMNS, FILES, tar, zipped

    (tmp_path / "mill.tar.gz").write_bytes(gzip.compress(tar(FILES)))
    (tmp_path / "wheel.zip").write_bytes(zipped(FILES))
    (tmp_path / "other.zip").write_bytes(zipped({"a.txt": b"text"}))
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text("x = 1\n")
    pq.write_table(pa.table(COLUMNS["v2"] | {"content": ["x = 1"] * 3}), tmp_path / "stack.parquet")
    scan = scan_inputs([str(tmp_path)])
    (group,) = scan.groups
    assert (group.format.read, group.format.domain, len(group.files)) == ("code", "code", 4)
    assert list(scan.left_out) == ["application/zip"]
    assert type(make_reader(group)).__name__ == "CodeReader"
