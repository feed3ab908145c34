"""Finds names of people and places with an installed spaCy pipeline, through presidio's mapping of its labels.

Off unless `ner` names a pipeline. It finds the entities that need a model (PERSON, LOCATION, ORGANIZATION, NRP,
DATE_TIME, and any other labels it sets). Patterns still run on a blank pipeline, so that the lemmas of this one, by
which presidio raises scores in context, do not change their findings. Nothing is downloaded: presidio would do that,
and two machines could then use two different models.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from curation.core.errors import UserError
from curation.safety.pii.presidio_import import import_presidio

# The entities to which presidio maps the labels of common pipelines
NER_ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME")
_PACKAGE = re.compile(r"[A-Za-z0-9_]+")


def is_package_name(pipeline: str) -> bool:
    """Whether `pipeline` has the form of a package name; anything else is a path."""
    return bool(_PACKAGE.fullmatch(pipeline))


def pipeline_version(pipeline: str) -> str:
    """Name and version of an installed pipeline; empty for a path, whose files are checksummed."""
    if not is_package_name(pipeline):
        return ""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"{pipeline} {installed(pipeline)}"
    except PackageNotFoundError:
        return pipeline


@functools.cache
def _load_pipeline(pipeline: str, language: str) -> tuple[Any, Any]:
    """presidio's engine and recognizer for a pipeline. Raises UserError if it does not exist or does not load."""
    import spacy

    import_presidio()
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    there = spacy.util.is_package(pipeline) if is_package_name(pipeline) else os.path.isdir(pipeline)
    if not there:
        how = (
            f"install it on every worker machine (`python -m spacy download {pipeline}`, or pip install its wheel)"
            if is_package_name(pipeline)
            else "the folder does not exist; expected a path with `config.cfg` in it"
        )
        raise UserError(f"the spaCy pipeline {pipeline} is not installed: {how}")
    try:
        nlp = spacy.load(pipeline)
    except Exception as e:  # third-party pipelines may raise anything while loading
        raise UserError(f"the spaCy pipeline {pipeline} does not load: {type(e).__name__}: {e}") from e
    if nlp.lang not in (language, "xx"):
        raise UserError(
            f"the spaCy pipeline {pipeline} is for language {nlp.lang!r}, but the step's language is {language!r}"
        )
    configuration = NerModelConfiguration()
    mapping = configuration.model_to_presidio_entity_mapping or {}
    labels = {label for name in nlp.pipe_names for label in _entity_labels(nlp, name)}
    if not labels:
        raise UserError(
            f"the spaCy pipeline {pipeline} finds no entities; its components are {', '.join(nlp.pipe_names) or 'none'}"
        )

    class Loaded(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp: Any = {language: nlp}

    made = Loaded([{"lang_code": language, "model_name": pipeline}], configuration)
    made.load()
    entities = sorted({mapping.get(label, label) for label in labels})
    return made, SpacyRecognizer(supported_language=language, supported_entities=entities)


def _entity_labels(nlp: Any, name: str) -> list[str]:
    """Labels of a component of a pipeline, if it sets entities."""
    if "doc.ents" not in nlp.get_pipe_meta(name).assigns:
        return []
    return list(nlp.pipe_labels.get(name, []))


def supported_entities(pipeline: str, language: str) -> list[str]:
    """Entities that the pipeline can find, in presidio's names, sorted."""
    return list(_load_pipeline(pipeline, language)[1].supported_entities)


def find_entities(
    text: str, entities: tuple[str, ...], pipeline: str, language: str
) -> list[tuple[str, int, int, float]]:
    """The pipeline's findings in one text, sorted: (entity, start, end, score), positions in characters."""
    engine, recognizer = _load_pipeline(pipeline, language)
    found = recognizer.analyze(text, list(entities), engine.process_text(text, language))
    return sorted((r.entity_type, r.start, r.end, r.score) for r in recognizer.remove_duplicates(found))
