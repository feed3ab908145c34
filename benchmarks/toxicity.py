"""Measures the toxicity step by domain beside a linear peer, its speed, and sentences of known weak spots.

python -m benchmarks.toxicity ../shared/data

Domains: tweets and news comments that no training saw, plain sentences that name a group of people, pages of the crawl.
Peers: logistic regression on TF-IDF of words, the usual baseline, trained here on the same tweets and comments
(without the identity sentences), with its threshold at the same recall on the same tweets; and alt-profanity-check, a
linear SVM of others, where it is installed, at its own threshold of 0.5. It was trained on these tweets among other
texts, held-out ones included. For comments the table also has the best that anything could reach: the AUC of the true
shares, if annotators disagree as these do.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.document import clean_text
from curation.safety.toxicity import identity_terms
from curation.safety.toxicity.fasttext_model import bundled_model, cut_words
from curation.safety.toxicity.toxicity import Toxicity
from curation.safety.toxicity.train import LABELS, RECALL, TOXIC, Comment, auc, read_comments, read_tweets

Scores = Callable[[Sequence[str]], list[float]]

# Offensive words stand here because what the model does with them is what is shown.
CASES = {
    "insult": [
        "you are a stupid idiot and everybody hates you",
        "shut your mouth you ugly bitch",
        "what a bunch of worthless faggots",
    ],
    "quotation": [
        "He called her a bitch, and the court fined him for it.",
        "The novel's narrator uses the word nigger more than two hundred times.",
        '"Shut up, you idiot," said the captain in the third act.',
    ],
    "negation": [
        "You are not stupid and nobody hates you.",
        "I would never call anybody a bitch.",
        "She is no whore, whatever they say.",
    ],
    "counter-speech": [
        "Calling people retarded is cruel, please stop doing it.",
        "Nobody deserves to be called a faggot at school.",
    ],
    "reclaimed words": [
        "My bitches and I are going out tonight, love them all.",
        "We queers take care of each other.",
        "Proud dyke, mother of three, terrible cook.",
    ],
    "identity terms": [
        "The gay couple next door adopted a daughter.",
        "Black students founded the choir in 1902.",
        "Muslim women of the quarter run the bakery.",
        "He is a Jewish doctor from Vienna.",
        "The transgender athlete came third.",
    ],
    "dialect": ["he be workin all day, ain't nobody got time for that", "finna go home, yall stay safe"],
    "literal": [
        "The bitch gave birth to six puppies.",
        "Moby Dick is a novel about a whale.",
        "The cock crowed at dawn.",
    ],
    "mild profanity": ["what the hell was that noise", "damn, the train is late again"],
    "toxic without slurs": [
        "people like you should disappear and never come back",
        "I hope your house burns down",
        "those people are vermin and breed like rats",
    ],
}
EXPECTED = ("insult", "toxic without slurs")  # everything else ought to pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="the folder of test data")
    data = Path(parser.parse_args().data)
    step = Toxicity()
    step.open()
    threshold = bundled_model()[1]["threshold"]

    def score(texts: list[str]) -> list[float]:
        batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
        return step(batch).column("toxicity").field("score").to_pylist()  # type: ignore[no-any-return]

    files = data / "toxicity" / "labeled_data.csv", data / "toxicity" / "comments.jsonl.gz"
    texts = crawled(data / "crawl")
    third = read_comments(files[1], held_out=True)
    peers = {"toxicity-en": (score, threshold), "TF-IDF, same texts": tfidf_peer(*files), **profanity_check()}
    print(f"{'domain':44}{'texts':>7}   " + "".join(f"{name:26}" for name in peers))
    for name, rows in domains(files[0], third, texts).items():
        cells = [f"{name:44}{len(rows):>7}   "]
        for scorer, limit in peers.values():
            values, toxic = scorer([text for _, text in rows]), [flag for flag, _ in rows]
            of = f"AUC {auc(values, toxic):.3f} " if 0 < sum(toxic) < len(rows) else ""
            hits = [v >= limit for v, flag in zip(values, toxic, strict=True) if flag == any(toxic)]
            cells.append(f"{of}flagged {sum(hits) / len(hits):.2%}".ljust(25))
        print(" ".join(cells))
    print("flagged: of the toxic ones where there are any (recall), else false alarms")
    print(f"best possible AUC on comments, majority: {ceiling(third):.3f}")

    size = sum(len(t.encode()) for t in texts) / 1e6
    start = time.process_time()
    score(texts)
    print(f"speed: {size / (time.process_time() - start):.1f} MB/s of CPU time, documents and sentences")
    for kind, sentences in CASES.items():
        flagged = sum(value >= threshold for value in score(sentences))
        wrong = len(sentences) - flagged if kind in EXPECTED else flagged
        print(f"  {kind}: {flagged} of {len(sentences)} flagged, {wrong} wrong")
        for sentence, value in zip(sentences, score(sentences), strict=True):
            print(f"  {kind:20} {value:.2f} {'flagged' if value >= threshold else '       '} {sentence}")


def domains(tweets: Path, third: Sequence[Comment], pages: Sequence[str]) -> dict[str, list[tuple[bool, str]]]:
    """(toxic, text) by domain."""
    held_out = [(label, clean_text(text)) for label, text in read_tweets(tweets, "held_out")]
    comments = [(c.toxicity, clean_text(c.text)) for c in third]
    plain = identity_terms.held_out_sentences()
    rows = {"tweets: hate or offensive against neither": [(label in TOXIC, text) for label, text in held_out]}
    rows |= {
        f"tweets: {label} alone": [(label in TOXIC, t) for which, t in held_out if which == label] for label in LABELS
    }
    return rows | {
        "comments: most annotators say toxic": [(share > 0.5, text) for share, text in comments],
        "comments: all say toxic, or 2/3 say not": [(s == 1, t) for s, t in comments if s == 1 or s <= 1 / 3],
        "comments: all say toxic, or all say not": [(s == 1, t) for s, t in comments if s in (0, 1)],
        "comments: most say not toxic": [(False, text) for share, text in comments if share <= 0.5],
        "plain sentences, groups of the training": [(False, t) for g, t in plain if g in identity_terms.GROUPS],
        "plain sentences, other groups": [(False, t) for g, t in plain if g in identity_terms.UNSEEN],
        "pages of documentation": [(False, text) for text in pages],
    }


def ceiling(comments: Sequence[Comment]) -> float:
    """The AUC of a model that knows each comment's true share of people who find it toxic.

    Annotators are three people out of many: with a beta distribution of the shares that explains the counts of those
    comments best, shares and counts are drawn anew, and the majority of the drawn counts is what is predicted.
    """
    from scipy.optimize import minimize
    from scipy.stats import betabinom

    total = np.array([c.annotators for c in comments])
    toxic = np.array([round(c.toxicity * c.annotators) for c in comments])
    fitted = minimize(lambda p: -betabinom.logpmf(toxic, total, *np.exp(p)).sum(), [1.0, 1.0], method="Nelder-Mead")
    rng = np.random.default_rng(1)
    share = rng.beta(*np.exp(fitted.x), 10 * len(total))
    drawn = rng.binomial(np.tile(total, 10), share) / np.tile(total, 10)
    return auc(share.tolist(), (drawn > 0.5).tolist())


def profanity_check() -> dict[str, tuple[Scores, float]]:
    """alt-profanity-check's scores and threshold, by its name; nothing where it is not installed."""
    try:
        from profanity_check import predict_prob
    except ImportError:
        print("alt-profanity-check is not installed: left out")
        return {}
    return {f"alt-profanity-check {version('alt-profanity-check')}": (lambda t: predict_prob(list(t)).tolist(), 0.5)}


def tfidf_peer(tweets: Path, comments: Path) -> tuple[Scores, float]:
    """Scores of a logistic regression on normalised TF-IDF of words (penalty 1), and its threshold."""
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    labelled = [(float(label in TOXIC), text) for label, text in read_tweets(tweets, "train")]
    labelled += [(c.toxicity, c.text) for c in read_comments(comments, held_out=False)]
    found = [set(cut_words(clean_text(text))) for _, text in labelled]
    counts = Counter(word for words in found for word in words)
    idf = {word: math.log(len(found) / n) + 1 for word, n in counts.items() if n > 1}
    index = {word: i for i, word in enumerate(sorted(idf))}

    def matrix(sets: Sequence[set[str]]) -> csr_matrix:
        rows, columns, values = [], [], []
        for i, words in enumerate(sets):
            known = sorted(words & index.keys())
            norm = math.sqrt(sum(idf[w] ** 2 for w in known))
            rows += [i] * len(known)
            columns += [index[w] for w in known]
            values += [idf[w] / norm for w in known]
        return csr_matrix((values, (rows, columns)), shape=(len(sets), len(index)))

    x, y = matrix(found), np.array([label for label, _ in labelled])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        error = 1 / (1 + np.exp(-z)) - y
        value = (np.logaddexp(0, z) - y * z).sum() + w[:-1] @ w[:-1] / 2
        return float(value), np.append(x.T @ error + w[:-1], error.sum())

    w = minimize(loss, np.zeros(len(index) + 1), jac=True, method="L-BFGS-B").x

    def scores(texts: Sequence[str]) -> list[float]:
        z = matrix([set(cut_words(clean_text(text))) for text in texts]) @ w[:-1] + w[-1]
        return (1 / (1 + np.exp(-z))).tolist()  # type: ignore[no-any-return]

    toxic = sorted(scores([text for label, text in read_tweets(tweets, "threshold") if label in TOXIC]))
    return scores, toxic[int(len(toxic) * (1 - RECALL))]


def crawled(folder: Path) -> list[str]:
    """Main text of the HTML pages of all archives in a folder."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    texts = []
    for path in sorted(folder.glob("*.warc.gz")):
        with open(path, "rb") as f:
            for record in ArchiveIterator(f, record_types=WarcRecordType.response):
                if "html" in (record.http_content_type or ""):
                    page = record.reader.read().decode("utf-8", "replace")
                    texts.append(clean_text(extract_plain_text(page, main_content=True)))
    return texts


if __name__ == "__main__":
    main()
