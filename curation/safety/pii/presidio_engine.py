"""presidio as it is used here: its recognizers on a blank spaCy pipeline, without models and without sockets.

A blank pipeline only cuts text into tokens, so no entity here depends on a model that would have to be installed. All
of presidio's recognizers that need none are there, also those of single countries that presidio ships switched off
(who names DE_TAX_ID means it), and those of the users' own files. The default entities are no language's own and are
there in every language. Names and places are not patterns: `pii_ner` has them.

presidio's e-mail check asks tldextract for the public suffix list, which fetches it on first use: it is pinned to the
snapshot that tldextract carries.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from curation.core.errors import UserError

# Entities that need no model, and are looked for unless the pipeline file says otherwise
DEFAULT = ("EMAIL_ADDRESS", "IP_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN")


@functools.cache
def engine(language: str, own: tuple[str, ...] = ()) -> Any:
    """presidio's AnalyzerEngine for one language, made once a process. `own`: contents of users' recognizer files.

    Raises UserError for a language that spaCy does not know.
    """
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.predefined_recognizers.generic import email_recognizer

    class Pinned:
        """What the recognizer uses of the tldextract module."""

        extract = staticmethod(tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None))

    recognizer_module: Any = email_recognizer
    recognizer_module.tldextract = Pinned
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)  # as errors it logs values it cannot validate
    nlp = _blank(language)
    recognizers = [*_predefined(language), *_own(language, own)]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[language])
    return AnalyzerEngine(nlp_engine=nlp, registry=registry, supported_languages=[language])


def _blank(language: str) -> Any:
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    try:
        spacy.util.get_lang_class(language)
    except ImportError:
        raise UserError(f"unknown language {language!r}: spaCy's codes are expected, such as en, de or zh") from None
    try:
        nlp = spacy.blank(language)
    except ImportError:  # Japanese, Korean and Thai tokenizers are packages of their own; patterns do without tokens
        nlp = spacy.blank("xx")
    nlp.max_length = 1 << 62  # the windows of `analyze` bound what it is given

    class BlankSpacy(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {language: nlp}

    made = BlankSpacy(models=[{"lang_code": language, "model_name": "blank"}])
    made.load()
    return made


def _predefined(language: str) -> list[Any]:
    from presidio_analyzer import predefined_recognizers as stock
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider
    from presidio_analyzer.recognizer_registry.recognizers_loader_utils import RecognizerConfigurationLoader

    configuration = RecognizerConfigurationLoader.get(registry_configuration={"supported_languages": [language]})
    for entry in configuration["recognizers"]:
        if isinstance(entry, dict) and entry.get(
            "country_code"
        ):  # patterns all; what needs a model or a server has none
            entry["enabled"] = True
    registry = RecognizerRegistryProvider(registry_configuration=configuration).create_recognizer_registry()
    made = list(registry.recognizers)
    everywhere = {"CREDIT_CARD": stock.CreditCardRecognizer, "US_SSN": stock.UsSsnRecognizer}
    there = {e for r in made for e in r.supported_entities if r.supported_language == language}
    made += [kind(supported_language=language) for entity, kind in everywhere.items() if entity not in there]
    return made


def _own(language: str, texts: tuple[str, ...]) -> list[Any]:
    from curation.safety.pii import custom_recognizers

    entries = [e for text in texts for e in custom_recognizers.parse(text, "recognizers")]
    return custom_recognizers.build(entries, language)


def supported(language: str, own: tuple[str, ...] = ()) -> list[str]:
    """Entities that there is a recognizer for in a language, sorted."""
    return sorted(engine(language, own).get_supported_entities(language))


def find(
    text: str, entities: tuple[str, ...], language: str, own: tuple[str, ...] = ()
) -> list[tuple[str, int, int, float]]:
    """presidio's findings in one text, sorted: (entity, start, end, score), positions in characters."""
    found = engine(language, own).analyze(text, language=language, entities=list(entities))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in found)
