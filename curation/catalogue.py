"""What the words of a pipeline file mean: steps and readers by name, imported when they are used."""

from __future__ import annotations

STEPS: dict[str, str | type] = {
    "extract": "curation.read.extract:Extract",
    "urls": "curation.quality.urls:Urls",
    "language": "curation.quality.language:Language",
    "c4_lines": "curation.quality.c4_lines:C4Lines",
    "heuristics": "curation.quality.heuristics:Heuristics",
    "perplexity": "curation.quality.perplexity:Perplexity",
    "classifier": "curation.quality.classifier:Classifier",
    "ensemble": "curation.quality.ensemble:Ensemble",
    "pii": "curation.safety.pii:Pii",
    "toxicity": "curation.safety.toxicity:Toxicity",
    "exact_dedup": "curation.dedup.exact:ExactDedup",
    "url_dedup": "curation.dedup.urls:UrlDedup",
    "line_dedup": "curation.dedup.lines:LineDedup",
    "minhash_dedup": "curation.dedup.near:MinHashDedup",
    "decontaminate": "curation.safety.decontaminate:Decontaminate",
    "datatrove": "curation.datatrove:Datatrove",
}

READERS: dict[str, str | type] = {
    "warc": "curation.read.warc:Warc",
    "text": "curation.read.text:Text",
}
