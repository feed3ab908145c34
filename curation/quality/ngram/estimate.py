"""Estimating n-gram language models: interpolated modified Kneser-Ney, written as ARPA.

The model is the one KenLM's lmplz makes (Chen & Goodman 1998, section 3; Heafield et al. 2013, section 3), with the
adjusted counts a of ngram_adjust, the discounts D of `discounts` and V words without <s>:

    p(w | c)  = (a(c w) - D(a(c w))) / sum_x a(c x)  +  b(c) p(w | c')         c' = c without its first word
    b(c)      = (D1 n1(c) + D2 n2(c) + D3 n3+(c) + counts pruned after c) / sum_x a(c x)
    p(w)      = (a(w) - D(a(w))) / sum_x a(x)  +  b() / V                      p(<unk>) = b() / V,   p(<s>) = 1

where n_i(c) is the number of kept words with a(c w) = i after the context c.

Out of core: rows of an order stand in suffix order on disk (ngram_count, ngram_adjust), and every step reads ranges.
What needs another order's rows at random (the sums over a context, and giving them back to the n-grams) is dealt out to
partitions that fit into memory. So peak memory is the vocabulary and a few blocks, whatever the length of the text.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curation.core.errors import UserError
from curation.quality import training_texts
from curation.quality.ngram.adjusted_counts import Order, adjust
from curation.quality.ngram.count import BOS, UNK, Packing, count, read_text
from curation.quality.ngram.disk_arrays import Array, Column, Partitions
from curation.quality.ngram.tokenize_text import Form, sentences
from curation.quality.perplexity import kenlm_binary

MAX_ORDER = 6  # what KenLM reads, as its Python package is built
FALLBACK = (0.0, 0.5, 1.0, 1.5)  # lmplz --discount_fallback


@dataclass(frozen=True)
class Estimate:
    """What was estimated: figures of the text, and of each order from 1 on."""

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
    """Estimates a model of `order` from texts and writes it to `out` (ARPA, whole or not at all).

    texts    each one or more lines; a line is a sentence (an empty one too, as in lmplz), a word what white space parts
    prune    as lmplz: n-grams seen so often or less are left out, a threshold an order (the last one holds for all
             orders above); the first must be 0 and none may fall
    memory   bytes that sorting may take; the vocabulary comes on top (about 150 bytes a word). More is no faster until
             the text has some 10^9 words, where it should be 1 GB
    scratch  directory for temporaries, about 150 bytes an n-gram; default: the system's

    workers  processes that cut text into words, and threads that sort; the rest, about a third of the work, is on one
             core. More than 1 needs what Python's spawned processes need: a main module that can be imported

    Raises UserError for an order outside 2..6, bad thresholds and a text without words. Where a text is too small for
    the discounts it warns and takes 0.5, 1, 1.5, as lmplz --discount_fallback does. The same sentences in any order,
    any `memory` and `workers` give the same file.
    """
    if not 2 <= order <= MAX_ORDER:
        raise UserError(f"an n-gram model of order {order}: KenLM reads orders from 2 to {MAX_ORDER}")
    thresholds = _thresholds(prune, order)
    block = max(memory // (48 * order), 1 << 10)  # sorting holds about 6 numbers of 8 bytes a word
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-ngram-", dir=scratch))
        text = read_text(_lines(texts), os.path.join(folder, "text"), workers)
        stack.callback(text.tokens.drop)
        vocabulary = len(text.words)
        if vocabulary == 3:
            raise UserError("the text has no words to estimate an n-gram model from")
        packing = Packing(order, max(vocabulary - 1, 1).bit_length())
        orders = adjust(count(text, packing, folder, block, workers), packing, thresholds, folder)
        amounts, fallback = [], []
        for k, rows in enumerate(orders, 1):
            amount = discounts(rows.of)
            if amount is None:
                fallback.append(k)
            amounts.append(np.array(amount or FALLBACK))
        if fallback:
            warnings.warn(
                f"the text is too small or too regular for the Kneser-Ney discounts of order {_and(fallback)}: "
                "taking 0.5, 1 and 1.5 instead; more text gives a better model",
                stacklevel=2,
            )
        _write(out, text.words, orders, amounts, packing.bits, folder, block)
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
    """`gristmill models train ngram`: a model of the documents in text, JSONL or Parquet files, folders or globs.

    The text is cut into sentences and words as the perplexity step with the same `form` will do it (ngram_text);
    `field` is the text's name in JSONL and Parquet. An `out` that ends in .arpa is an ARPA file, any other KenLM's
    binary form, which the processes of a machine share; where that cannot be made it is an ARPA file too, with a
    warning. All else, and what is raised, as in `estimate`.
    """
    text = sentences(training_texts.read_texts(paths, field), form)
    if out.endswith(".arpa"):
        return estimate(text, order, out, prune=prune, memory=memory, scratch=scratch, workers=workers)
    arpa = out + ".arpa"
    made = estimate(text, order, arpa, prune=prune, memory=memory, scratch=scratch, workers=workers)
    try:
        kenlm_binary.convert(arpa, out)
        os.unlink(arpa)
    except UserError as e:
        os.replace(arpa, out)
        warnings.warn(
            f"{out} is an ARPA file and no KenLM binary, so each process that scores with it parses it and holds a "
            f"copy of {os.path.getsize(out) >> 20} MB of text: {e}",
            stacklevel=2,
        )
    return replace(made, path=out)


def discounts(of: Array) -> tuple[float, float, float, float] | None:
    """D(0), D(1), D(2), D(3 and more) from the numbers of n-grams with adjusted count 0 to 4; None if there are none.

    D(j) = j - (j + 1) Y n(j + 1) / n(j),  Y = n(1) / (n(1) + 2 n(2))    (Chen & Goodman 1998, equation 26)
    """
    if (of[1:4] == 0).any():
        return None
    y = of[1] / (of[1] + 2 * of[2])
    amounts = [j - (j + 1) * y * of[j + 1] / of[j] for j in (1, 2, 3)]
    # out of range it is no discount; lmplz lets 0 pass, and writes back-offs of minus infinity
    if not all(0 < amount <= j for j, amount in enumerate(amounts, 1)):
        return None
    return 0.0, float(amounts[0]), float(amounts[1]), float(amounts[2])


def _thresholds(prune: Sequence[int] | None, order: int) -> list[int]:
    given = list(prune or [0])
    if len(given) > order or given[0] != 0 or given != sorted(given):
        raise UserError(f"prune {given}: expected at most {order} thresholds that never fall, the first of them 0")
    return given + [given[-1]] * (order - len(given))


def _lines(texts: Iterable[str | bytes]) -> Iterator[bytes]:
    for text in texts:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        yield from (data[:-1] if data.endswith(b"\n") else data).split(b"\n")


def _and(orders: list[int]) -> str:
    return ", ".join(map(str, orders))


@dataclass
class _Solved:
    """What is known of an order once it is computed: a column each, in suffix order."""

    context: Column | None  # position of an n-gram's context in the order below (None: order 1, all 0)
    probability: Column  # p(w | c)


def _write(
    out: str, words: list[bytes], orders: list[Order], amounts: list[Array], bits: int, folder: str, block: int
) -> None:
    """Computes order by order and writes each as soon as the next one has given it its back-offs."""
    from curation.quality.ngram.arpa import Writer

    writer = Writer(words)
    temporary = f"{out}.{uuid.uuid4().hex[:12]}.tmp"
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    try:
        with open(temporary, "wb", buffering=1 << 20) as file:
            header = "".join(f"ngram {k}={rows.kept}\n" for k, rows in enumerate(orders, 1))
            file.write(f"\\data\\\n{header}".encode())
            below = _unigrams(orders[0], amounts[0], folder)
            for k, rows in enumerate(orders, 1):
                solved, backoff = below, None
                if k < len(orders):
                    below, backoff = _solve(orders[k], amounts[k], rows, solved, bits, folder, block, k + 1)
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
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _unigrams(rows: Order, amount: Array, folder: str) -> _Solved:
    a = rows.count.read(0, rows.rows)
    gamma = (amount[np.minimum(a, 3)].sum()) / a.sum()
    p = (a - amount[np.minimum(a, 3)]) / a.sum() + gamma / (rows.rows - 1)
    p[UNK], p[BOS] = gamma / (rows.rows - 1), 1.0
    column = Column(os.path.join(folder, "p1"), np.float64)
    column.append(p)
    return _Solved(None, column)


def _solve(
    rows: Order, amount: Array, below: Order, known: _Solved, bits: int, folder: str, block: int, k: int
) -> tuple[_Solved, Column]:
    """Order k from order k - 1: its probabilities and contexts, and the back-offs (log10) of order k - 1."""

    def path(name: str) -> str:
        return os.path.join(folder, f"{name}{k}")

    # 1. Deal the n-grams out by context. The context of (w1 ... wk) is the row of order k - 1 with the suffix
    #    (w2 ... w(k-1)), which is the context of our own suffix, and the first word w1: again one 64-bit key.
    edges = np.array([below.key.read(at, at + 1)[0] for at in range(0, below.rows, block)])
    by_context = Partitions(path("by-context"), 3)
    for at in range(0, rows.rows, block):
        key = rows.key.read(at, at + block)
        suffix, first = key >> bits, key & ((1 << bits) - 1)
        if known.context is None:
            context_key = first
        else:
            low = int(suffix[0])
            context_key = (known.context.read(low, int(suffix[-1]) + 1)[suffix - low] << bits) | first
        a = rows.count.read(at, at + block)
        a[rows.pruned.read(at, at + block)] *= -1  # the sign carries the mark
        number = np.arange(at, at + len(key))
        by_context.deal(np.searchsorted(edges, context_key, "right") - 1, np.stack([context_key, number, a], 1))
    # 2. Context by context: the sums, the back-off of each context, and every n-gram's own share; deal back.
    by_row = Partitions(path("by-row"), 4)
    backoff = Column(path("backoff"), np.float64)
    for part, low in enumerate(range(0, below.rows, block)):
        keys = below.key.read(low, low + block)
        total, mass = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        seen = np.zeros((4, len(keys)), np.int64)
        for piece in by_context.read(part, block):
            context, a = np.searchsorted(keys, piece[:, 0]), piece[:, 2]
            total += np.bincount(context, np.abs(a), len(keys)).astype(np.int64)
            mass += np.bincount(context, np.maximum(-a, 0), len(keys)).astype(np.int64)
            for j in (1, 2, 3):
                seen[j] += np.bincount(context[np.minimum(a, 3) == j], minlength=len(keys))
        # integers up to here, so the sums do not depend on the order of their terms
        with np.errstate(invalid="ignore"):
            gamma = (amount[1] * seen[1] + amount[2] * seen[2] + amount[3] * seen[3] + mass) / total
        gamma[total == 0] = 1.0  # nothing ever followed: back off at no cost
        backoff.append(np.log10(gamma))
        for piece in by_context.read(part, block):
            context, a = np.searchsorted(keys, piece[:, 0]), np.abs(piece[:, 2])
            share = (a - amount[np.minimum(a, 3)]) / total[context]
            by_row.deal(
                piece[:, 1] // block,
                np.stack([piece[:, 1], context + low, share.view(np.int64), gamma[context].view(np.int64)], 1),
            )
    by_context.drop()
    # 3. Back in suffix order: interpolate with the suffix's probability, which is a range of the order below.
    solved = _Solved(Column(path("context"), np.int64), Column(path("p"), np.float64))
    assert solved.context is not None
    for part, at in enumerate(range(0, rows.rows, block)):
        suffix = rows.key.read(at, at + block) >> bits
        n, low = len(suffix), int(suffix[0])
        table = np.empty((n, 3), np.int64)
        for piece in by_row.read(part, block):
            table[piece[:, 0] - at] = piece[:, 1:]
        share, gamma = table[:, 1].view(np.float64), table[:, 2].view(np.float64)
        solved.context.append(table[:, 0])
        solved.probability.append(share + gamma * known.probability.read(low, int(suffix[-1]) + 1)[suffix - low])
    by_row.drop()
    return solved, backoff
