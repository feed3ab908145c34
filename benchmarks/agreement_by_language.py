"""Compares our decisions by language with those of datatrove's filters under FineWeb2's configuration, same texts.

    python -m benchmarks.agreement_by_language [--languages de,zh] [--documents 150] [--show]

Texts of a language: its sentences in lid/sentences.tsv, joined by the line and by the paragraph, and pages of the crawl
that lid.176 finds to be in it (score 0.8 or more). datatrove cuts words with a tokenizer of the language; those of zh,
ja, th, ko and vi need jieba, sudachipy with sudachidict_core, pythainlp, kiwipiepy and pyvi, and a language whose
tokenizer is absent is left out.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import crawl, crawl_texts
from benchmarks.agreement import compare_filter, decisions, families, line
from curation.document import clean_text
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.heuristics.language_stats import load_language_stats
from curation.quality.language import Language

SPACED, UNSPACED = ("en", "de", "fr", "es", "ru", "pl", "tr", "vi", "id"), ("zh", "ja", "th", "ko")
_LONGEST = 20_000  # characters; spaCy takes seconds for longer ones


def joined_sentences(data: Path) -> dict[str, list[str]]:
    """For each language documents of 5 to 25 neighbouring sentences, each as lines and as paragraphs of five."""
    sentences: dict[str, list[str]] = {}
    for row in (data / "lid" / "sentences.tsv").read_text(encoding="utf-8").strip("\n").split("\n"):
        code, sentence = row.split("\t", 1)
        sentences.setdefault(code, []).append(sentence)
    out: dict[str, list[str]] = {}
    for code, every in sentences.items():
        for size in (5, 10, 25):
            for at in range(0, len(every) - size + 1, size):
                some = every[at : at + size]
                paragraphs = [" ".join(some[i : i + 5]) for i in range(0, size, 5)]
                out.setdefault(code, []).extend(["\n".join(some), "\n\n".join(paragraphs)])
    return out


def crawled(wanted: set[str], most: int) -> dict[str, list[str]]:
    """Pages of the crawl in each language, at most so many of each, drawn at random."""
    step = Language()
    step.open()
    out: dict[str, list[str]] = {code: [] for code in wanted}
    for batch in crawl_texts.batches():
        for text, found in zip(
            batch.column("text").to_pylist(), step(batch).column("language").to_pylist(), strict=True
        ):
            if found["code"] in wanted and found["score"] >= 0.8 and len(text) <= _LONGEST:
                out[found["code"]].append(text)
    return {code: random.Random(0).sample(texts, min(most, len(texts))) for code, texts in out.items()}


def blocks(label: str) -> dict[str, Any]:
    """datatrove's filters as fineweb-2-pipeline.py sets them up."""
    from datatrove.pipeline import filters

    stats = load_language_stats()
    t = stats.thresholds[label]
    off = {n: t.get(f"max_{n}", 0) for n in ("dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")}
    return {
        "gopher repetition": filters.GopherRepetitionFilter(
            **off,
            language=label,
            dup_line_frac=t["max_dup_line_frac"],
            top_n_grams=[(n, t[f"max_top_{n}gram"]) for n in (2, 3, 4)],
            dup_n_grams=[(n, t[f"max_dup_{n}gram"]) for n in range(5, 11)],
        ),
        "fineweb": filters.FineWebQualityFilter(
            language=label,
            short_line_thr=t.get("max_short_line_ratio", 999),
            char_duplicates_ratio=t["max_dup_char_ratio"],
            line_punct_thr=t["min_punct_line_ratio"],
            new_line_ratio=t["max_newline_ratio"],
        ),
        "gopher quality": filters.GopherQualityFilter(
            language=label,
            max_avg_word_length=t["max_mean_word_length"],
            min_avg_word_length=t["min_mean_word_length"],
            stop_words=list(stats.stop_words[label]),
            max_non_alpha_words_ratio=t["min_alpha_words"],
            min_stop_words=2,
        ),
    }


def compare(code: str, texts: list[str], show: bool) -> tuple[int, int]:
    """Prints the table of one language; returns (documents decided alike, documents)."""
    label = load_language_stats().label(code)
    assert label is not None
    language = pa.StructArray.from_arrays([pa.array([code] * len(texts))], ["code"])
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string()), "language": language})
    ours = decisions(Heuristics(sets=["gopher", "fineweb"], thresholds="by_language"), batch)
    groups = families(list(ours[0]))
    dropped = [False] * len(texts)
    kinds: Counter[str] = Counter()
    print(f"\n{code} ({label}), {len(texts)} documents")
    for name, block in blocks(label).items():
        counts, decided = compare_filter(block, texts, ours, groups[name])
        for i, (failed, reason) in enumerate(decided):
            dropped[i] |= reason is not None
            if bool(failed) != (reason is not None):
                kinds[f"ours: {', '.join(failed) or 'keeps'}; datatrove: {reason or 'keeps'}"] += 1
                if show:
                    print(f"    {failed or 'keeps'} / {reason or 'keeps'} {texts[i][:100]!r}")
        line(name, counts)
    counts = Counter((all(v.values()), not d) for v, d in zip(ours, dropped, strict=True))
    line("all", counts)
    for kind, n in kinds.most_common():
        print(f"    {n:>4}  {kind}")
    return counts[True, True] + counts[False, False], len(texts)


def main() -> None:
    parser = crawl.arguments(__doc__)
    parser.add_argument("--languages", default=",".join(SPACED + UNSPACED), help="lid.176's codes [%(default)s]")
    parser.add_argument("--documents", type=int, default=150, help="most crawled pages of a language [%(default)s]")
    parser.add_argument("--show", action="store_true", help="name every document that is decided otherwise")
    options = parser.parse_args()
    wanted = options.languages.split(",")
    sentences, pages = joined_sentences(options.data), crawled(set(wanted), options.documents)
    print(f"{crawl.versions('datatrove', 'spacy')}")
    print(f"{'filter':<20} {'agree':>8} {'both keep':>10} {'both drop':>10} {'only we drop':>13} {'only it drops':>14}")
    same = total = 0
    for code in wanted:
        texts = [clean_text(text) for text in [*sentences.get(code, []), *pages[code]]]
        try:
            alike, count = compare(code, texts, options.show)
        except ImportError as error:
            print(f"{code}: left out, {error}")
            continue
        if code in SPACED:
            same, total = same + alike, total + count
    if total:
        print(f"\nlanguages with spaces: {same} of {total} decided alike ({same / total:.2%})")


if __name__ == "__main__":
    main()
