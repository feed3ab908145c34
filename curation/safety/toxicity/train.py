"""Trains the bundled toxicity model: `python -m curation.safety.toxicity.train labeled_data.csv comments.jsonl.gz`.

The data are the tweets of Davidson et al. 2017 ("Automated Hate Speech Detection and the Problem of Offensive
Language", ICWSM; MIT licence): class 0 hate speech, 1 offensive language, 2 neither; and the news comments of
SemEval-2021 task 5 (Pavlopoulos et al. 2021; from Civil Comments, CC0), each with how many annotators said that it is
not toxic. They stay out of the repository; it holds the model, the facts beside it, and the card with the figures that
benchmarks/toxicity.py prints.

Splits are by the SHA-256 of the text: a fifth of the tweets and a third of the comments are held out and used only for
the card; a twentieth of the other tweets sets the threshold; the model is trained on the remainder, on identity_terms'
sentences and on spaCy's. The same files give the same model: byte for byte on one machine, to a few digits on another.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import importlib
import json
import os
import pkgutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.document import clean_text
from curation.safety.toxicity import identity_terms
from curation.safety.toxicity.fasttext_model import BUNDLED, UNKNOWN, ToxicityModel, cut_words

LABELS = ("hate", "offensive", "neither")  # of the tweets
# Comments have labels of their own. What is toxic in a tweet and in a comment differs, and with both in one class the
# linear model had an AUC of .589 on comments that it was not trained on; with a class each, .607
CLASSES = (*LABELS, "toxic", "civil")
TOXIC = ("hate", "offensive", "toxic")
RECALL = 0.93  # on the tweets that set the threshold, so that it is above 0.9 on held-out ones
# L2 penalty of a word's weights, in units of one text. Character n-grams as further features gave .609 instead of .607
PENALTY = 2.0
END_OF_LINE = "</s>"  # fastText's name of it
SCALE = 10.0  # of the word frequencies of a text: the penalty, relative to that of the other weights


@dataclass(frozen=True)
class Comment:
    """A news comment, and the share of its annotators who found it toxic."""

    text: str
    toxicity: float
    annotators: int


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def part(tweet: str) -> str:
    """The split of a tweet: held_out, threshold or train."""
    number = _number(tweet)
    if number % 5 == 0:
        return "held_out"
    return "threshold" if number // 5 % 20 == 0 else "train"


def read_tweets(path: str | Path, wanted: str) -> list[tuple[str, str]]:
    """(label, tweet) of one split, in the file's order."""
    with open(path, encoding="utf-8", newline="") as f:
        rows = [(LABELS[int(row["class"])], row["tweet"]) for row in csv.DictReader(f)]
    return [(label, tweet) for label, tweet in rows if part(tweet) == wanted]


def read_comments(path: str | Path, *, held_out: bool) -> list[Comment]:
    """The held-out third of the comments, or the other two thirds, in the file's order."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return [
        Comment(row["text"], 1 - row["not_toxic"] / row["annotators"], row["annotators"])
        for row in rows
        if (_number(row["text"]) % 3 == 0) == held_out
    ]


def neutral_sentences() -> list[str]:
    """spaCy's example sentences in about seventy languages (MIT licence), as texts that are neither hate nor offensive.

    Most tweets are offensive, so without them text in other languages tends to be flagged. With them and with `<unk>`
    for unknown words one page of the crawl was flagged; without either 1.1 %, nearly all short and not English.
    """
    import spacy.lang

    sentences = []
    for language in sorted(m.name for m in pkgutil.iter_modules(spacy.lang.__path__) if m.ispkg):
        try:
            examples = importlib.import_module(f"spacy.lang.{language}.examples")
        except ModuleNotFoundError:
            continue
        sentences += [" ".join(s.split()) for s in examples.sentences]
    return sentences


def auc(scores: Sequence[float], toxic: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a toxic text scores above another, ties counting half."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks, i = [0.0] * len(scores), 0
    while i < len(order):
        j = i
        while j < len(order) and scores[order[j]] == scores[order[i]]:
            j += 1
        for k in order[i:j]:
            ranks[k] = (i + j + 1) / 2
        i = j
    positives = sum(toxic)
    total = sum(r for r, t in zip(ranks, toxic, strict=True) if t)
    return (total - positives * (positives + 1) / 2) / (positives * (len(toxic) - positives))


def training_texts(tweets: str | Path, comments: str | Path) -> list[tuple[list[str], dict[str, float]]]:
    """(words, probability of each class) of all texts that the model is trained on."""
    texts = [(text, {label: 1.0}) for label, text in read_tweets(tweets, "train")]
    texts += [(c.text, {"toxic": c.toxicity, "civil": 1 - c.toxicity}) for c in read_comments(comments, held_out=False)]
    texts += [(text, {"neither": 1.0}) for text in (*neutral_sentences(), *identity_terms.plain_sentences())]
    texts += [(text, {"hate": 1.0}) for text in identity_terms.attacks()]
    return [(cut_words(clean_text(text)), classes) for text, classes in texts]


def fit(texts: Sequence[tuple[list[str], dict[str, float]]]) -> dict[str, np.ndarray[Any, Any]]:
    """Multinomial logistic regression on word frequencies: the weights of each known word, `<unk>` and end of line.

    A text's class scores are the mean of its words' weights, as in a fastText model. L-BFGS finds the one minimum of a
    convex function, so the result depends on no seed; the order of the texts moves it
    by up to 0.011, which is where the minimizer stops.
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    counts = Counter(word for words, _ in texts for word in set(words))
    known = [UNKNOWN, *sorted(word for word, n in counts.items() if n > 1)]
    index = {word: i for i, word in enumerate(known)}
    rows, columns, values = [], [], []
    for i, (words, _) in enumerate(texts):
        for j, n in Counter(index.get(word, 0) for word in words).items():
            rows.append(i)
            columns.append(j)
            values.append(SCALE * n / (len(words) + 1))  # fastText's end of line counts as a word, without weight
    frequencies = csr_matrix((values, (rows, columns)), shape=(len(texts), len(known)))
    transposed = frequencies.T.tocsr()
    wanted = np.array([[classes.get(name, 0.0) for name in CLASSES] for _, classes in texts])

    def loss(flat: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        weights = flat.reshape(-1, len(CLASSES))
        scores = frequencies @ weights[:-1] + weights[-1]
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        error = np.exp(logs) - wanted
        penalty = PENALTY * np.vstack([weights[:-1], np.zeros(len(CLASSES))])  # none on the bias
        gradient = np.vstack([transposed @ error, error.sum(axis=0)]) + penalty
        return float((penalty * weights).sum() / 2 - (wanted * logs).sum()), gradient.ravel()

    start = np.zeros((len(known) + 1) * len(CLASSES))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400}).x
    weights = found.reshape(-1, len(CLASSES))
    bias = weights[-1]  # in every word, and so in their mean
    rounded = np.round(np.vstack([SCALE * weights[:-1] + bias, bias]), 3)  # more depend on the CPU
    return dict(zip([*known, END_OF_LINE], rounded, strict=True))


def save_fasttext(path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    """Writes the weights as a fastText model: fastText builds the dictionary, and its matrices are replaced."""
    import fasttext

    with tempfile.TemporaryDirectory() as scratch:
        lines = os.path.join(scratch, "words.txt")
        with open(lines, "w", encoding="utf-8") as f:
            f.writelines(f"__label__{name} {UNKNOWN}\n" for name in CLASSES)
            f.writelines(f"{word}\n" for word in weights if word != END_OF_LINE)
        options = {"dim": len(CLASSES), "epoch": 0, "minCount": 1, "bucket": 0, "minn": 0, "maxn": 0}
        model = fasttext.train_supervised(lines, **options, thread=1, verbose=0)
    words = np.stack([weights[word] for word in model.get_words()])
    order = [CLASSES.index(label.removeprefix("__label__")) for label in model.get_labels()]
    model.set_matrices(words.astype(np.float32), np.eye(len(CLASSES), dtype=np.float32)[order])
    model.save_model(str(path))


def train(tweets: str, comments: str, out: Path) -> None:
    """Writes toxicity-en.bin and toxicity-en.json into `out` and prints how it does on held-out texts."""
    path = out / f"{BUNDLED}.bin"
    save_fasttext(path, fit(training_texts(tweets, comments)))
    model = ToxicityModel.load(str(path), TOXIC, words=True)

    def scores(texts: Sequence[str]) -> list[float]:
        return [sum(row) for row in model.scores([model.prepare(clean_text(text)) for text in texts])]

    toxic = sorted(scores([text for label, text in read_tweets(tweets, "threshold") if label in TOXIC]))
    threshold = round(toxic[int(len(toxic) * (1 - RECALL))], 3)
    stored = path.read_bytes()
    facts = {
        "bytes": len(stored),
        "labels": list(TOXIC),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "threshold": threshold,
    }
    (out / f"{BUNDLED}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")

    held_out = {
        "tweets": [(label in TOXIC, text) for label, text in read_tweets(tweets, "held_out")],
        "comments": [(c.toxicity > 0.5, c.text) for c in read_comments(comments, held_out=True)],
    }
    for name, rows in held_out.items():
        found = auc(scores([text for _, text in rows]), [flag for flag, _ in rows])
        print(f"held out: {len(rows)} {name}, AUC {found:.4f}, threshold {threshold}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tweets", help="labeled_data.csv of Davidson et al. 2017")
    parser.add_argument("comments", help="comments.jsonl.gz: text, annotators, not_toxic on each line")
    parser.add_argument("--out", default=str(Path(__file__).parent), help="folder for the model (default: the package)")
    given = parser.parse_args()
    train(given.tweets, given.comments, Path(given.out))


if __name__ == "__main__":
    main()
