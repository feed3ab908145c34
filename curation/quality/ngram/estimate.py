"""Estimates n-gram language models (interpolated modified Kneser-Ney) and writes them as ARPA files.

The model is the one that KenLM's lmplz makes. count.py counts n-grams, adjusted_counts.py adjusts the counts,
kneser_ney.py turns them into probabilities and back-offs, arpa.py writes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from curation.core import atomic_files
from curation.core.errors import UserError
from curation.quality import training_texts
from curation.quality.ngram.adjusted_counts import Order, adjust_counts
from curation.quality.ngram.count import Packing, count, read_text
from curation.quality.ngram.disk_arrays import Array
from curation.quality.ngram.kneser_ney import FALLBACK_DISCOUNTS, compute_discounts, solve_order, solve_unigrams
from curation.quality.ngram.tokenize_text import Form, facts_path, sentences
from curation.quality.perplexity import kenlm_binary

MAX_ORDER = 6  # what KenLM reads, as its Python package is built


@dataclass(frozen=True)
class Estimate:
    """Statistics of an estimated model: of the text, and of each order from 1 on."""

    path: str
    order: int
    sentences: int
    tokens: int  # words, without line ends
    vocabulary: int  # words, without <unk>, <s> and </s>
    ngrams: tuple[int, ...]  # rows in the file
    pruned: tuple[int, ...]  # rows left out
    discounts: tuple[tuple[float, float, float], ...]  # D1, D2, D3+
    fallback: tuple[int, ...]  # orders whose discounts could not be computed from the text


def estimate(
    texts: Iterable[str | bytes],
    order: int,
    out: str,
    *,
    prune: Sequence[int] | None = None,
    memory: int = 64 << 20,
    scratch: str | None = None,
    workers: int = 1,
) -> Estimate:
    """Estimates a model of `order` from texts and writes it atomically to `out` (ARPA).

    texts    each one or more lines; a line is a sentence (an empty one too, as in lmplz), white space separates words
    prune    as lmplz: n-grams with a count up to the threshold of their order are left out (the last threshold holds
             for all higher orders); the first must be 0, and none may be lower than the one before
    memory   bytes that sorting may take; the vocabulary comes on top (about 150 bytes a word). More is no faster until
             the text has some 10^9 words, where it should be 1 GB
    scratch  directory for temporary files, about 150 bytes per n-gram; default: the system's
    workers  processes that split text into words, and threads that sort; the rest, about a third of the work, runs on
             one core. With more than 1 the main module must be importable, as Python's spawned processes need it

    Raises UserError for an order outside 2..6, bad thresholds and a text without words. Warns where a text is too small
    to compute the discounts, and takes 0.5, 1, 1.5, as lmplz --discount_fallback does. The same sentences in any order,
    any `memory` and `workers` give the same file.
    """
    if not 2 <= order <= MAX_ORDER:
        raise UserError(f"n-gram order {order}: expected 2 to {MAX_ORDER}, the orders that KenLM reads")
    thresholds = _check_thresholds(prune, order)
    block = max(memory // (48 * order), 1 << 10)  # sorting holds about 6 numbers of 8 bytes a word
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-ngram-", dir=scratch))
        text = read_text(_split_lines(texts), os.path.join(folder, "text"), workers)
        stack.callback(text.tokens.drop)
        vocabulary = len(text.words)
        if vocabulary == 3:
            raise UserError("no words to estimate an n-gram model from: the text is empty or has only white space")
        packing = Packing(order, max(vocabulary - 1, 1).bit_length())
        orders = adjust_counts(count(text, packing, folder, block, workers), packing, thresholds, folder)
        amounts, fallback = [], []
        for k, rows in enumerate(orders, 1):
            amount = compute_discounts(rows.of)
            if amount is None:
                fallback.append(k)
            amounts.append(np.array(amount or FALLBACK_DISCOUNTS))
        if fallback:
            warnings.warn(
                f"the text is too small or too regular for the Kneser-Ney discounts of order {_joined(fallback)}: "
                "using 0.5, 1 and 1.5 instead; more text gives a better model",
                stacklevel=2,
            )
        _write_arpa(out, text.words, orders, amounts, packing.bits, folder, block)
        figures = Estimate(
            path=out,
            order=order,
            sentences=text.sentences,
            tokens=text.tokens.rows - text.sentences,
            vocabulary=vocabulary - 3,
            ngrams=tuple(rows.kept for rows in orders),
            pruned=tuple(rows.rows - rows.kept for rows in orders),
            discounts=tuple((float(a[1]), float(a[2]), float(a[3])) for a in amounts),
            fallback=tuple(fallback),
        )
        for rows in orders:
            rows.drop()
    return figures


def train_ngram(
    paths: Sequence[str],
    order: int,
    out: str,
    *,
    form: Form = "words",
    field: str = "text",
    prune: Sequence[int] | None = None,
    memory: int = 64 << 20,
    scratch: str | None = None,
    workers: int = 1,
) -> Estimate:
    """Estimates a model for `gristmill models train ngram` from text, JSONL or Parquet files, folders or globs.

    The text is split into sentences and words as the perplexity step with the same `form` does (tokenize_text.py);
    `field` is the name of the text in JSONL and Parquet. An `out` that ends in .arpa becomes an ARPA file, any other a
    KenLM binary, which the processes of a machine share; where that cannot be made, an ARPA file with a warning. The
    form is stored in OUT.json beside it, where the step that scores with the model looks. The other arguments and
    errors are those of `estimate`.
    """
    text = sentences(training_texts.read_texts(paths, field), form)
    if out.endswith(".arpa"):
        made = estimate(text, order, out, prune=prune, memory=memory, scratch=scratch, workers=workers)
        _write_facts(made, form)
        return made
    arpa = out + ".arpa"
    made = estimate(text, order, arpa, prune=prune, memory=memory, scratch=scratch, workers=workers)
    try:
        kenlm_binary.convert_to_binary(arpa, out)
        os.unlink(arpa)
    except UserError as e:
        os.replace(arpa, out)
        warnings.warn(
            f"{out} is an ARPA file, not a KenLM binary, so each process that scores with it parses it and holds its "
            f"own copy of {os.path.getsize(out) >> 20} MB of text: {e}",
            stacklevel=2,
        )
    made = replace(made, path=out)
    _write_facts(made, form)
    return made


def _write_facts(made: Estimate, form: Form) -> None:
    facts = {"form": form, **{k: v for k, v in asdict(made).items() if k != "path"}}
    atomic_files.write(facts_path(made.path), (json.dumps(facts, indent=1) + "\n").encode())


def _check_thresholds(prune: Sequence[int] | None, order: int) -> list[int]:
    given = list(prune or [0])
    if len(given) > order or given[0] != 0 or given != sorted(given):
        raise UserError(f"prune {given}: expected at most {order} thresholds that do not decrease, the first of them 0")
    return given + [given[-1]] * (order - len(given))


def _split_lines(texts: Iterable[str | bytes]) -> Iterator[bytes]:
    for text in texts:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        yield from (data[:-1] if data.endswith(b"\n") else data).split(b"\n")


def _joined(orders: list[int]) -> str:
    return ", ".join(map(str, orders))


def _write_arpa(
    out: str, words: list[bytes], orders: list[Order], amounts: list[Array], bits: int, folder: str, block: int
) -> None:
    """Computes order by order, and writes each once the next one has given it its back-offs."""
    from curation.quality.ngram.arpa import ArpaWriter

    writer = ArpaWriter(words)
    with atomic_files.replacing(out) as temporary, open(temporary, "wb", buffering=1 << 20) as file:
        header = "".join(f"ngram {k}={rows.kept}\n" for k, rows in enumerate(orders, 1))
        file.write(f"\\data\\\n{header}".encode())
        below = solve_unigrams(orders[0], amounts[0], folder)
        for k, rows in enumerate(orders, 1):
            solved, backoff = below, None
            if k < len(orders):
                below, backoff = solve_order(orders[k], amounts[k], rows, solved, bits, folder, block, k + 1)
            file.write(f"\n\\{k}-grams:\n".encode())
            for at in range(0, rows.rows, block):
                keep = ~rows.pruned.read(at, at + block)
                file.write(
                    writer.render(
                        rows.words.read(at, at + block).reshape(-1, k)[keep],
                        np.minimum(np.log10(solved.probability.read(at, at + block)[keep]), 0.0),
                        backoff.read(at, at + block)[keep] if backoff is not None else np.empty(0),
                    )
                )
            for column in (solved.context, solved.probability, backoff):
                if column is not None:
                    column.drop()
        file.write(b"\n\\end\\\n")
