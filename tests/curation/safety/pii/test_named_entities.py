"""Names and places by a spaCy pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.core.errors import UserError
from curation.safety.pii.pii import Pii
from tests.curation.safety.pii.test_pii import run


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline that knows three names."""
    import spacy

    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    names = {"PERSON": "Jane Roe", "GPE": "Ulan Bator", "SHIP": "Nautilus"}
    ruler.add_patterns([{"label": label, "pattern": name} for label, name in names.items()])
    folder = tmp_path_factory.mktemp("ner") / "names"
    nlp.to_disk(folder)
    return folder


def test_names_by_a_spacy_pipeline(pipeline: Path) -> None:
    entities = ["EMAIL_ADDRESS", "PERSON", "LOCATION", "SHIP"]
    step = Pii(entities=entities, ner=str(pipeline))
    assert step.inputs() == (str(pipeline),)
    text = "Jane Roe of Ulan Bator (jane@python.org) sails on the Nautilus."
    texts, counts = run([text], entities=entities, ner=str(pipeline))
    assert texts == ["<PERSON> of <LOCATION> (<EMAIL_ADDRESS>) sails on the <SHIP>."]
    assert json.loads(str(counts[0]["spans"]))[0] == ["PERSON", 0, 8, "mask"]
    whole = "word " * 250_000 + text
    assert str(run([whole], entities=entities, ner=str(pipeline))[0][0]).endswith("<PERSON> of" + texts[0][11:])
    assert run([text])[0] == [text.replace("jane@python.org", "<EMAIL_ADDRESS>")]  # off by default


def test_pipelines_that_are_not_there(pipeline: Path, tmp_path: Path) -> None:
    cases = {
        "PERSON needs a spaCy pipeline: install one": Pii(entities=["PERSON"]),
        "en_core_web_sm is not installed: install it on every worker": Pii(entities=["PERSON"], ner="en_core_web_sm"),
        "the folder does not exist": Pii(entities=["PERSON"], ner=str(tmp_path / "none")),
        "does not load": Pii(entities=["PERSON"], ner=str(tmp_path)),
        "is for language 'en'": Pii(entities=["PERSON"], ner=str(pipeline), language="de"),
        "unknown entity ORGANIZATION": Pii(entities=["ORGANIZATION"], ner=str(pipeline)),
    }
    for message, step in cases.items():
        with pytest.raises(UserError, match=message):
            step.check()
