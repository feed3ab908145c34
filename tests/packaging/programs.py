"""What the tests of installs run: a JSONL folder through exact and MinHash deduplication, a training on its shards."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path

PIPELINE = """
name: small
sources: [{name: reference, read: text, root: input, path: '*.jsonl'}]
steps: [exact_dedup, minhash_dedup]
tokenizer: {train: {vocab: 400}}
validation: 0.1
"""
CURATE = "import sys; sys.argv[0] = 'gristmill'; from pipelines.cli.main import main; main()"
TRAIN = """
import sys
from training.config import parse
from training.train import train

text = '''
steps: 6
model: {preset: toy}
data: {seq_len: 32}
batch: {global_size: 4}
precision: fp32
threads: 1
'''
result = train(parse(text), 'run', 'trained')
print('modules', *sorted({m.partition('.')[0] for m in sys.modules}))
"""
FIRST, SECOND = 3, 2  # exact copies, near copies


def write_input(folder: Path) -> int:
    """Python's reference manual as JSON Lines with some copies; how many documents are distinct."""
    texts = [t for _, t in sorted(pydoc_data.topics.topics.items()) if len(t.split()) > 100]
    near = [t + "\nOne more line." for t in texts[:SECOND]]
    (folder / "input").mkdir()
    with open(folder / "input" / "a.jsonl", "w", encoding="utf-8") as file:
        for text in (*texts, *texts[:FIRST], *near):
            file.write(json.dumps({"text": text}) + "\n")
    (folder / "small.yaml").write_text(PIPELINE, encoding="utf-8")
    return len(texts)
