"""Names of people and places by a spaCy pipeline that the user has installed: presidio's mapping of its labels.

Off unless `ner` names a pipeline. It gives the entities that need a model (PERSON, LOCATION, ORGANIZATION, NRP,
DATE_TIME, and whatever other labels it sets). Patterns go on being read on a blank pipeline, so that the lemmas of
another one, by which presidio raises scores in context, change nothing of them. Nothing is downloaded: presidio would,
and two machines could then read with two models.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from curation.core.errors import UserError

# What presidio maps the labels of usual pipelines to
USUAL = ("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME")
_PACKAGE = re.compile(r"[A-Za-z0-9_]+")


def is_package(pipeline: str) -> bool:
    """Whether `pipeline` is written as the name of an installed package; anything else is a path."""
    return bool(_PACKAGE.fullmatch(pipeline))


def version(pipeline: str) -> str:
    """What tells an installed pipeline from its next version; empty for a path, whose files are checksummed."""
    if not is_package(pipeline):
        return ""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"{pipeline} {installed(pipeline)}"
    except PackageNotFoundError:
        return pipeline


@functools.cache
def _engine(pipeline: str, language: str) -> tuple[Any, Any]:
    """presidio's engine and recognizer around a pipeline. Raises UserError where it is not there or does not load."""
    import spacy
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    there = spacy.util.is_package(pipeline) if is_package(pipeline) else os.path.isdir(pipeline)
    if not there:
        how = (
            f"install it on every machine that works (`python -m spacy download {pipeline}`, or pip install its wheel)"
            if is_package(pipeline)
            else "there is no such folder; a path with `config.cfg` in it was expected"
        )
        raise UserError(f"the spaCy pipeline {pipeline} is not here: {how}")
    try:
        nlp = spacy.load(pipeline)
    except Exception as e:  # whatever a pipeline of others raises while it is built
        raise UserError(f"the spaCy pipeline {pipeline} does not load: {type(e).__name__}: {e}") from e
    if nlp.lang not in (language, "xx"):
        raise UserError(
            f"the spaCy pipeline {pipeline} is of language {nlp.lang!r}, the step's language is {language!r}"
        )
    configuration = NerModelConfiguration()
    mapping = configuration.model_to_presidio_entity_mapping or {}
    labels = {label for name in nlp.pipe_names for label in _sets_entities(nlp, name)}
    if not labels:
        raise UserError(
            f"the spaCy pipeline {pipeline} sets no entities: it has {', '.join(nlp.pipe_names) or 'no parts'}"
        )

    class Loaded(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {language: nlp}

    made = Loaded([{"lang_code": language, "model_name": pipeline}], configuration)
    made.load()
    entities = sorted({mapping.get(label, label) for label in labels})
    return made, SpacyRecognizer(supported_language=language, supported_entities=entities)


def _sets_entities(nlp: Any, name: str) -> list[str]:
    """Labels of one of a pipeline's components, if what it sets is entities."""
    if "doc.ents" not in nlp.get_pipe_meta(name).assigns:
        return []
    return list(nlp.pipe_labels.get(name, []))


def supported(pipeline: str, language: str) -> list[str]:
    """Entities that the pipeline can find, in presidio's names, sorted."""
    return list(_engine(pipeline, language)[1].supported_entities)


def find(text: str, entities: tuple[str, ...], pipeline: str, language: str) -> list[tuple[str, int, int, float]]:
    """The pipeline's findings in one text, sorted: (entity, start, end, score), positions in characters."""
    engine, recognizer = _engine(pipeline, language)
    found = recognizer.analyze(text, list(entities), engine.process_text(text, language))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in recognizer.remove_duplicates(found))
