"""Compares the perplexity step with KenLM alone, and cc_net's form with SentencePiece and KenLM alone.

    python -m benchmarks.perplexity

The model is of order 5, trained on WikiText-2's validation text, in KenLM's binary form where there is a build_binary
(`gristmill models binary` makes one). "Bare" is `kenlm.Model.score` over sentences that lie ready, normalised and
decoded; ours reads Arrow batches of extracted pages, normalises, scores and gives an Arrow column. cc_net's form has
a SentencePiece model of 4,000 pieces from the same text; "bare" is then SentencePiece and KenLM over documents that
are normalised.
The contenders take turns at each batch, and the best of five rounds of each batch counts, in CPU seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import crawl_texts
from curation.quality.ngram import estimate, tokenize_text
from curation.quality.perplexity import ccnet_normalization, kenlm_binary
from curation.quality.perplexity.perplexity import Perplexity

ROUNDS = 5
TEXT = crawl_texts.DATA / "lm" / "wikitext2_valid.txt"


def compare(title: str, size: float, batches: int, contenders: dict[str, Callable[[int], Any]]) -> None:
    """Prints MB of extracted text a second for each, and what share of the first one's speed that is."""
    best = {name: [1e9] * batches for name in contenders}
    for _ in range(ROUNDS):
        for i in range(batches):
            for name, run in contenders.items():
                begin = time.process_time()
                run(i)
                best[name][i] = min(best[name][i], time.process_time() - begin)
    print(title)
    bare = sum(next(iter(best.values())))
    for name, times in best.items():
        print(f"  {name:<36} {size / sum(times):7.2f} MB/s   {bare / sum(times):5.2f} x bare")


def words(folder: Path, batches: list[Any]) -> None:
    model = str(folder / "words.arpa")
    estimate.train_ngram([str(TEXT)], 5, model)
    kind = "ARPA, no build_binary here"
    if (tool := kenlm_binary.find_build_binary()) is not None:
        kenlm_binary.convert_to_binary(model, str(folder / "words.bin"), tool)
        model, kind = str(folder / "words.bin"), "KenLM binary"
    step, paragraphs = Perplexity(model=model), Perplexity(model=model, paragraphs=True)
    step.open()
    paragraphs.open()
    kenlm = step._opened[""].kenlm
    ready = [
        [line.decode() for lines, _ in tokenize_text.tokenize(b.column("text")) for line in lines] for b in batches
    ]
    compare(
        f"words, order 5 ({kind})",
        crawl_texts.megabytes(batches),
        len(batches),
        {
            "KenLM bare": lambda i: sum(map(kenlm.score, ready[i])),
            "cutting text into words, by itself": lambda i: list(tokenize_text.tokenize(batches[i].column("text"))),
            "step": lambda i: step(batches[i]),
            "step, paragraphs": lambda i: paragraphs(batches[i]),
        },
    )


def ccnet(folder: Path, batches: list[Any]) -> None:
    import sentencepiece

    prepared = folder / "prepared.txt"
    lines = TEXT.read_text(encoding="utf-8").split("\n")
    prepared.write_text("\n".join(filter(None, map(ccnet_normalization.normalise, lines))), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.Train(
        input=str(prepared), model_prefix=str(folder / "en.sp"), vocab_size=4000, minloglevel=2, num_threads=1
    )
    tokenizer = ccnet_normalization.load_tokenizer(str(folder / "en.sp.model"))
    pieces = tokenizer.encode(prepared.read_text(encoding="utf-8").split("\n"), out_type=str, num_threads=1)
    estimate.estimate((" ".join(line) for line in pieces), 5, str(folder / "en.arpa.bin"))
    step = Perplexity(model=str(folder / "en.arpa.bin"), form="ccnet")
    step.open()
    kenlm = step._opened[""].kenlm
    ready = [[ccnet_normalization.normalise(text) for text in b.column("text").to_pylist()] for b in batches]

    def bare(i: int) -> float:
        found = tokenizer.encode(ready[i], out_type=str, num_threads=1)
        return float(sum(kenlm.score(" ".join(line)) for line in found))

    compare(
        "cc_net's form, order 5",
        crawl_texts.megabytes(batches),
        len(batches),
        {"SentencePiece and KenLM bare": bare, "step": lambda i: step(batches[i])},
    )


def main() -> None:
    warnings.simplefilter("ignore")  # no binary: said in the table
    versions = ", ".join(f"{name} {version(name)}" for name in ("kenlm", "sentencepiece", "numba", "pyarrow"))
    batches = crawl_texts.batches(files=2)
    print(f"{crawl_texts.megabytes(batches):.1f} MB of extracted text; Python {sys.version.split()[0]}, {versions}")
    with tempfile.TemporaryDirectory() as name:
        words(Path(name), batches)
        ccnet(Path(name), batches[:2])


if __name__ == "__main__":
    main()
