"""presidio as it is used here: its own recognizers on a blank spaCy pipeline, without models and without sockets.

A blank pipeline only cuts text into tokens, so no entity here depends on a model that would have to be installed.
presidio's e-mail check asks tldextract for the public suffix list, which fetches it on first use: it is pinned to the
snapshot that tldextract carries.
"""

from __future__ import annotations

import functools
import logging
from typing import Any


@functools.cache
def engine(language: str) -> Any:
    """presidio's AnalyzerEngine for one language, made once a process."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers.generic import email_recognizer
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider

    class BlankSpacy(SpacyNlpEngine):
        def load(self) -> None:
            nlp = spacy.blank(language)
            nlp.max_length = 1 << 62  # the windows of `analyze` bound what it is given
            self.nlp: Any = {language: nlp}

    class Pinned:
        """What the recognizer uses of the tldextract module."""

        extract = staticmethod(tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None))

    recognizer_module: Any = email_recognizer
    recognizer_module.tldextract = Pinned
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)  # as errors it logs values it cannot validate
    nlp = BlankSpacy(models=[{"lang_code": language, "model_name": "blank"}])
    nlp.load()
    configuration = {"supported_languages": [language]}
    registry = RecognizerRegistryProvider(registry_configuration=configuration).create_recognizer_registry()
    return AnalyzerEngine(nlp_engine=nlp, registry=registry, supported_languages=[language])


def supported(language: str) -> list[str]:
    """Entities that presidio has a recognizer for in a language, sorted."""
    return sorted(engine(language).get_supported_entities(language))


def find(text: str, entities: tuple[str, ...], language: str) -> list[tuple[str, int, int, float]]:
    """presidio's findings in one text, sorted: (entity, start, end, score), positions in characters."""
    found = engine(language).analyze(text, language=language, entities=list(entities))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in found)
