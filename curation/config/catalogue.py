"""Lists all steps and readers by their names in a pipeline file; each is imported when it is used."""

from __future__ import annotations

STEPS: dict[str, str | type] = {
    "extract": "curation.extract.extract:Extract",
    "urls": "curation.quality.url_signals:UrlSignals",
    "language": "curation.quality.language:Language",
    "c4_line_filter": "curation.quality.c4_line_filter:C4LineFilter",
    "heuristics": "curation.quality.heuristics.heuristics:Heuristics",
    "perplexity": "curation.quality.perplexity.perplexity:Perplexity",
    "classifier": "curation.quality.classifier.classifier:Classifier",
    "ensemble": "curation.quality.ensemble.ensemble:Ensemble",
    "pii": "curation.safety.pii.pii:Pii",
    "toxicity": "curation.safety.toxicity.toxicity:Toxicity",
    "exact_dedup": "curation.dedup.exact_dedup:ExactDedup",
    "url_dedup": "curation.dedup.url_dedup:UrlDedup",
    "line_dedup": "curation.dedup.line_dedup:LineDedup",
    "minhash_dedup": "curation.dedup.minhash.minhash_dedup:MinHashDedup",
    "decontaminate": "curation.safety.decontamination.decontaminate:Decontaminate",
    "datatrove": "curation.datatrove_adapter:Datatrove",
}

READERS: dict[str, str | type] = {
    "warc": "curation.sources.warc.warc:WarcReader",
    "text": "curation.sources.text.text:TextReader",
    "gutenberg": "curation.sources.books.gutenberg:GutenbergReader",
    "latex": "curation.sources.latex.latex:LatexReader",
    "code": "curation.sources.code.code:CodeReader",
    "epub": "curation.sources.books.epub:EpubReader",
    "stackexchange": "curation.sources.dumps.stackexchange:StackExchangeReader",
    "wikipedia": "curation.sources.dumps.wikipedia:WikipediaReader",
}
