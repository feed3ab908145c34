"""datatrove's blocks as steps: what they decide, rewrite and add, and which are refused."""

from __future__ import annotations

import json
import pickle
import sys
import types

import pyarrow as pa
import pytest

from curation.core.errors import UserError
from curation.datatrove_adapter import Datatrove

pytest.importorskip("datatrove")

PROSE = "It is said that the sea has many voices and that one has to be patient with them. " * 8


def run(
    texts: list[str | None], block: str, urls: list[str | None] | None = None, **args: object
) -> tuple[list[str], list[dict[str, object]]]:
    step = Datatrove(block=block, args=args, name="dt")
    step.check()
    step.open()
    n = len(texts)
    batch = pa.record_batch(
        {
            "doc_id": pa.array([bytes([i]) * 16 for i in range(n)], pa.binary(16)),
            "text": pa.array(texts, pa.large_string()),
            "url": pa.array(urls or [None] * n, pa.string()),
            "meta": pa.array(['{"a": 1}'] * n, pa.string()),
        }
    )
    out = step(batch)
    assert out.schema.field("dt").type == pa.struct(list(step.signals))
    assert out.schema.field("text").type == pa.large_string()
    return out.column("text").to_pylist(), out.column("dt").to_pylist()


def test_a_filter_decides_and_says_why() -> None:
    texts, signals = run([PROSE, "short", None], "GopherQualityFilter", min_doc_words=30)
    assert texts == [PROSE, "short", ""]
    assert [s["keep"] for s in signals] == [True, False, False]
    assert [s["reason"] for s in signals] == [None, "gopher_short_doc", "gopher_short_doc"]
    assert Datatrove(block="x", name="dt").rules() == {"keep": "dt.keep"}


def test_a_filter_may_rewrite() -> None:
    texts, signals = run(["He said that.\nmenu\nShe said so."], "C4QualityFilter", min_num_sentences=2)
    assert texts == ["He said that.\nShe said so."] and signals[0]["keep"]


def test_an_error_in_a_block_is_the_engines_to_count() -> None:
    """As of any other step: the record is left out by name, and a run in which it happens often stops."""
    with pytest.raises((ZeroDivisionError, ValueError)):
        run([""], "GopherQualityFilter", min_doc_words=0, min_avg_word_length=0, max_avg_word_length=0)


def test_a_formatter_rewrites_each_document_alone() -> None:
    together = run(["mail a@python.org", "mail b@python.org c@python.org"], "PIIFormatter")
    alone = [run([t], "PIIFormatter") for t in ("mail a@python.org", "mail b@python.org c@python.org")]
    assert together[0] == [t for texts, _ in alone for t in texts]
    assert together[0][0] == "mail email@example.com"


def test_an_extractor_extracts() -> None:
    html = f"<html><body><article><h1>Sea</h1><p>{PROSE}</p></article></body></html>"
    texts, signals = run([html, ""], "Trafilatura")
    assert "many voices" in texts[0] and "<p>" not in texts[0] and signals[0]["keep"]
    assert (texts[1], signals[1]["keep"], signals[1]["reason"]) == ("", False, "empty")


def test_a_users_own_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from datatrove.pipeline.filters.base_filter import BaseFilter

    class Odd(BaseFilter):  # type: ignore[misc]
        name = "odd"

        def filter(self, doc: object) -> bool:
            doc.metadata["length"] = len(doc.text)  # type: ignore[attr-defined]
            doc.metadata["host"] = doc.metadata["url"].split("/")[2]  # type: ignore[attr-defined]
            return doc.metadata["length"] % 2 == 1 and doc.metadata["a"] == 1  # type: ignore[attr-defined,no-any-return]

    module = types.ModuleType("own_blocks")
    module.Odd = Odd  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_blocks", module)
    _, signals = run(["abc", "ab"], "own_blocks.Odd", ["https://a.org/x", "https://b.org/y"])
    assert [json.loads(str(s["metadata"])) for s in signals] == [
        {"host": "a.org", "length": 3},
        {"host": "b.org", "length": 2},
    ]
    assert [(s["keep"], s["reason"]) for s in signals] == [(True, None), (False, "filtered")]


@pytest.mark.parametrize(
    ("block", "args", "message"),
    [
        ("", {}, "name a datatrove class"),
        ("NoSuchFilter", {}, "no datatrove block NoSuchFilter in datatrove.pipeline.filters"),
        ("no.such.module.Filter", {}, "cannot import no.such.module"),
        ("datatrove.pipeline.dedup.MinhashDedupSignature", {}, "does not work on single documents"),
        ("datatrove.pipeline.readers.JsonlReader", {}, "does not work on single documents"),
        ("SamplerFilter", {"rate": 0.5}, "draws random numbers"),
        ("LambdaFilter", {"filter_function": "f"}, "write a step or a rule"),
        ("C4BadWordsFilter", {"keep_fraction": 0.1}, "draws random numbers"),
        ("GopherQualityFilter", {"min_words": 3}, "refuses its arguments.*min_words"),
        ("RegexFilter", {"regex_exp": "("}, "refuses its arguments"),
        ("RegexFilter", {"regex_exp": "x", "exclusion_writer": "y"}, "ledger"),
    ],
)
def test_what_is_refused(block: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Datatrove(block=block, args=args).check()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from datatrove.utils import _import_utils

    monkeypatch.setattr(_import_utils, "_is_package_available", lambda *_: False)
    with pytest.raises(UserError, match=r"needs more than is installed.*fasttext"):
        Datatrove(block="LanguageFilter").check()


def test_picklable_and_empty() -> None:
    step = Datatrove(block="GopherQualityFilter")
    step.open()
    assert pickle.loads(pickle.dumps(step)) == step
    assert run([], "GopherQualityFilter") == ([], [])
