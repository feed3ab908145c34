"""Measures the toxicity step: held-out tweets, false alarms and speed on the crawl, and sentences of known weak spots.

python -m benchmarks.toxicity ../shared/data
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pyarrow as pa

from curation.document import clean_text
from curation.safety.toxicity.fasttext_model import bundled_model
from curation.safety.toxicity.toxicity import Toxicity
from curation.safety.toxicity.train import LABELS, TOXIC, auc, read_tweets

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

    tweets = read_tweets(data / "toxicity" / "labeled_data.csv", "held_out")
    scores = score([clean_text(t) for _, t in tweets])
    toxic = [label in TOXIC for label, _ in tweets]
    print(f"held out: {len(tweets)} tweets, AUC {auc(scores, toxic):.4f}, threshold {threshold}")
    for label in LABELS:
        those = [s >= threshold for s, (name, _) in zip(scores, tweets, strict=True) if name == label]
        print(f"  {label:10} {len(those):5} flagged {sum(those) / len(those):.4f}")

    texts = crawled(data / "crawl")
    size = sum(len(t.encode()) for t in texts) / 1e6
    start = time.process_time()
    scores = score(texts)
    spent = time.process_time() - start
    print(f"crawl: {len(texts)} pages, flagged {sum(s >= threshold for s in scores) / len(texts):.4%}")
    print(f"speed: {size / spent:.1f} MB/s of CPU time, documents and sentences")
    for kind, sentences in CASES.items():
        flagged = sum(value >= threshold for value in score(sentences))
        wrong = len(sentences) - flagged if kind in EXPECTED else flagged
        print(f"  {kind}: {flagged} of {len(sentences)} flagged, {wrong} wrong")
        for sentence, value in zip(sentences, score(sentences), strict=True):
            print(f"  {kind:20} {value:.2f} {'flagged' if value >= threshold else '       '} {sentence}")


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
