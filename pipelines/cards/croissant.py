"""A run as Croissant 1.0 (MLCommons): JSON-LD that dataset search engines and loaders read.

Every file of the result that holds data stands in it with its size and SHA-256; the documents' columns are a record
set, so `mlcroissant` opens them from the file alone.
"""

from __future__ import annotations

from typing import Any

from curation import __version__
from pipelines.cards.facts import UNDECLARED, Facts

# The context that the specification prescribes, version 1.0, appendix 1
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        word: f"cr:{word}"
        for word in (
            *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
            *("includes", "isLiveDataset", "jsonPath", "key", "md5", "equivalentProperty", "parentField"),
            *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
            *("source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_COLUMNS = {
    "text": ("sc:Text", "The text as it was curated."),
    "url": ("sc:URL", "The address as crawled."),
    "domain": ("sc:Text", "The mix domain."),
    "date": ("sc:DateTime", "When it was crawled or published."),
}


def render(facts: Facts) -> dict[str, Any]:
    """The JSON-LD object."""
    documents = [f for f in facts.files if f["path"].startswith("result/documents/")]
    shards = [f for f in facts.files if f["path"].startswith("result/shards/")]
    licences = sorted({s["licence"] for s in facts.sources if s["licence"] != UNDECLARED})
    undeclared = [s["name"] for s in facts.sources if s["licence"] == UNDECLARED]
    said = [*licences, *([f"{UNDECLARED}: {', '.join(undeclared)}"] if undeclared else [])]
    made: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": (
            f"{facts.kept:,} documents out of {facts.records:,} records, curated by Gristmill. What was dropped, "
            "by which rule, and the known limits stand in card.md."
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": said if len(said) > 1 else said[0],
        "version": f"{facts.generation}.0.0",
        "citeAs": f"{facts.name}, curated by Gristmill {__version__}, fingerprint {facts.run['fingerprint']}",
        "isBasedOn": [s["origin"] for s in facts.sources if s.get("origin")],
        "rai:dataCollection": "; ".join(
            f"{s['name']}: {s['files']} files read as {s['read']}, licence {s['licence']}" for s in facts.sources
        ),
        "rai:dataPreprocessingProtocol": [
            f"{s['name']}: {s['reached']} documents in, {s['left']} left"
            + "".join(f"; {rule} dropped {what['dropped']}" for rule, what in s["rules"].items() if what["dropped"])
            for s in facts.steps
        ],
        "rai:personalSensitiveInformation": _personal(facts),
        "rai:dataLimitations": facts.limits,
        "distribution": [*map(_file, documents), *map(_file, shards)],
    }
    if not made["isBasedOn"]:
        del made["isBasedOn"]
    if facts.made:
        made["datePublished"] = facts.made
    if documents:
        made["distribution"].append(
            {
                "@type": "cr:FileSet",
                "@id": "documents-files",
                "name": "documents-files",
                "encodingFormat": "application/x-parquet",
                "includes": "result/documents/*.parquet",
            }
        )
        made["recordSet"] = [
            {
                "@type": "cr:RecordSet",
                "@id": "documents",
                "name": "documents",
                "description": "The documents that stayed.",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"documents/{column}",
                        "name": column,
                        "description": told,
                        "dataType": kind,
                        "source": {"fileSet": {"@id": "documents-files"}, "extract": {"column": column}},
                    }
                    for column, (kind, told) in _COLUMNS.items()
                ],
            }
        ]
    return made


def _file(file: dict[str, Any]) -> dict[str, Any]:
    path = str(file["path"])
    kinds = {".parquet": "application/x-parquet", ".arrow": "application/vnd.apache.arrow.file"}
    kind = next((k for suffix, k in kinds.items() if path.endswith(suffix)), "application/json")
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{file['bytes']} B",
        "encodingFormat": kind,
        "sha256": file["sha256"],
    }


def _personal(facts: Facts) -> str:
    step = next((s for s in facts.steps if s["step"] == "pii"), None)
    if step is None:
        return "Personal data was not looked for."
    found = facts.signals.get(step["name"], {})
    counts = [f"{n.upper()} {s.total:.0f}" for n, s in found.items() if s.quantiles and n not in ("total", "spared")]
    return f"Replaced before anything was stored, over {facts.rows} records: {', '.join(counts) or 'none'}."
