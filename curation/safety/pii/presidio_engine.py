"""Sets up presidio's analyzer with its recognizers on a blank spaCy pipeline: no models, no network.

A blank pipeline only tokenizes, so no entity depends on an installed model. All of presidio's recognizers that need no
model are included, also those of single countries that presidio disables by default (whoever names DE_TAX_ID wants it),
and custom ones. The default entities are available in every language. Names and places need a model: named_entities.py.

presidio's e-mail recognizer asks tldextract for the public suffix list, which would be downloaded on first use: it is
pinned to the snapshot that tldextract ships.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from curation.core.errors import UserError
from curation.safety.pii.presidio_import import import_presidio

# Entities that need no model; the step's default
DEFAULT_ENTITIES = ("EMAIL_ADDRESS", "IP_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN")


@functools.cache
def analyzer_engine(language: str, own: tuple[str, ...] = ()) -> Any:
    """presidio's AnalyzerEngine for one language, built once per process. `own`: contents of custom recognizer files.

    Raises UserError for a language that spaCy does not have.
    """
    import_presidio()
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, pattern_recognizer
    from presidio_analyzer.predefined_recognizers.generic import email_recognizer

    class PinnedTldextract:
        """The part of the tldextract module that the recognizer uses."""

        extract = staticmethod(tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None))

    recognizer_module: Any = email_recognizer
    recognizer_module.tldextract = PinnedTldextract
    # it gives a pattern 60 s and then goes on without it: what is found would depend on the machine
    recognizer_module = pattern_recognizer
    recognizer_module.REGEX_TIMEOUT_SECONDS = None
    # it logs values that it cannot validate, as errors
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)
    nlp = _blank_nlp_engine(language)
    recognizers = [*_predefined_recognizers(language), *_custom_recognizers(language, own)]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[language])
    return AnalyzerEngine(nlp_engine=nlp, registry=registry, supported_languages=[language])


def _blank_nlp_engine(language: str) -> Any:
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    try:
        spacy.util.get_lang_class(language)
    except ImportError:
        raise UserError(f"unknown language {language!r}: expected a code of spaCy's, such as en, de or zh") from None
    try:
        nlp = spacy.blank(language)
    except ImportError:  # tokenizers of Japanese, Korean and Thai are separate packages; patterns need no tokens
        nlp = spacy.blank("xx")
    nlp.max_length = 1 << 62  # detect.analyze limits the size of what it is given

    class BlankSpacy(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {language: nlp}

    made = BlankSpacy(models=[{"lang_code": language, "model_name": "blank"}])
    made.load()
    return made


def _predefined_recognizers(language: str) -> list[Any]:
    from presidio_analyzer import predefined_recognizers as stock
    from presidio_analyzer.recognizer_registry import RecognizerRegistryProvider
    from presidio_analyzer.recognizer_registry.recognizers_loader_utils import RecognizerConfigurationLoader

    configuration = RecognizerConfigurationLoader.get(registry_configuration={"supported_languages": [language]})
    for entry in configuration["recognizers"]:
        if isinstance(entry, dict) and entry.get(
            "country_code"
        ):  # these are all patterns; recognizers that need a model or a server have no country code
            entry["enabled"] = True
    registry = RecognizerRegistryProvider(registry_configuration=configuration).create_recognizer_registry()
    made = list(registry.recognizers)
    everywhere = {"CREDIT_CARD": stock.CreditCardRecognizer, "US_SSN": stock.UsSsnRecognizer}
    there = {e for r in made for e in r.supported_entities if r.supported_language == language}
    made += [kind(supported_language=language) for entity, kind in everywhere.items() if entity not in there]
    return made


def _custom_recognizers(language: str, texts: tuple[str, ...]) -> list[Any]:
    from curation.safety.pii import custom_recognizers

    entries = [e for text in texts for e in custom_recognizers.parse_recognizers(text, "recognizers")]
    return custom_recognizers.build_recognizers(entries, language)


def supported_entities(language: str, own: tuple[str, ...] = ()) -> list[str]:
    """Entities with a recognizer in a language, sorted."""
    return sorted(analyzer_engine(language, own).get_supported_entities(language))


def analyze_text(
    text: str, entities: tuple[str, ...], language: str, own: tuple[str, ...] = ()
) -> list[tuple[str, int, int, float]]:
    """presidio's findings in one text, sorted: (entity, start, end, score), positions in characters."""
    found = analyzer_engine(language, own).analyze(text, language=language, entities=list(entities))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in found)
