"""Writes the cards of recipes (pipeline files) and of models in the catalogue."""

from __future__ import annotations

import os
from typing import Any

from curation import models
from curation.config.load_pipeline import load_pipeline
from curation.config.where_condition import one_line
from curation.storage import Storage
from pipelines.cards.dataset import front_matter, licence_id, table


def write_recipe_card(file: str, folder: str) -> str:
    """Writes FOLDER/NAME.md, the card of a pipeline file. Raises UserError for a file that cannot be loaded."""
    pipeline = load_pipeline(file)
    path = os.path.join(folder, f"{pipeline.name}.md")
    Storage(folder).write_bytes(f"{pipeline.name}.md", _recipe(file, pipeline).encode())
    return path


def write_model_card(name: str, folder: str) -> str:
    """Writes FOLDER/NAME.md, the card of a model in the catalogue."""
    Storage(folder).write_bytes(f"{name}.md", _model(name).encode())
    return os.path.join(folder, f"{name}.md")


def _recipe(file: str, pipeline: Any) -> str:
    resolved = pipeline.resolved()
    used = dict.fromkeys(m for e in pipeline.steps for m in e.step.models() if m in models.CATALOGUE)
    sources = [[s["name"], s["domain"], s["read"], s.get("licence") or "to be declared"] for s in resolved["sources"]]
    steps = []
    for entry in resolved["steps"]:
        options = ", ".join(f"{k}: {v}" for k, v in entry["options"].items())
        called = entry["name"] if entry["name"] == entry["step"] else f"{entry['name']} ({entry['step']})"
        rules = list(entry["rules"].items()) or [("", "")]
        for i, (rule, sql) in enumerate(rules):
            shown = f"`{one_line(sql)}`" if sql else ""
            steps.append([called if i == 0 else "", options if i == 0 else "", rule, shown])
    parts = [
        front_matter({"pretty_name": pipeline.name, "license": "apache-2.0", "tags": ["gristmill", "recipe"]}),
        f"# The recipe {pipeline.name}",
        _comment(file),
        "A recipe has no figures. Each run of it writes a data card with what it read, dropped and kept.",
        "## Sources",
        table(["source", "domain", "reader", "licence"], sources),
        "## Steps and rules",
        table(["step", "options", "rule", "keep if"], steps),
    ]
    if used:
        rows = [[m, models.CATALOGUE[m].licence, models.CATALOGUE[m].note] for m in used]
        parts += ["## Models", table(["model", "licence", "description"], rows)]
    return "\n\n".join(p.strip("\n") for p in parts) + "\n"


def _comment(file: str) -> str:
    """The comment at the top of the file."""
    with open(file, encoding="utf-8") as f:
        lines = []
        for line in f:
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(lines)


def _model(name: str) -> str:
    model = models.CATALOGUE[name]
    bundled = next((s.removeprefix("package:") for s in model.sources if s.startswith("package:")), None)
    facts = [
        ["description", model.note],
        ["licence", model.licence],
        ["bytes", f"{model.size:,}" if model.size else ""],
        ["SHA-256", f"`{model.sha256}`"],
        ["from", "bundled with the package: " + bundled if bundled else ", ".join(f"`{s}`" for s in model.sources)],
        ["installation", "none needed" if bundled else f"`gristmill models pull {name}`"],
    ]
    licence = licence_id(model.licence.split(" ")[0])
    head = front_matter({"license": licence, "library_name": "fasttext", "tags": ["gristmill", "text-classification"]})
    parts = [head, f"# {name}", table(["", ""], facts)]
    notes = os.path.join(os.path.dirname(models.__file__), "..", bundled.rsplit(".", 1)[0] + ".md") if bundled else ""
    if notes and os.path.isfile(notes):
        with open(notes, encoding="utf-8") as f:
            parts.append(f.read())
    return "\n\n".join(p.strip("\n") for p in parts) + "\n"
