"""Describes a run as Croissant 1.0 metadata (MLCommons): JSON-LD that dataset search engines and loaders read.

Lists every data file of the result with its size and SHA-256. The columns of the documents are a record set, so that
`mlcroissant` can load them.
"""

from __future__ import annotations

from typing import Any

from curation import __version__
from pipelines.cards.card_data import UNDECLARED, CardData

# The context of the specification, version 1.0, appendix 1
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
    "text": ("sc:Text", "The curated text."),
    "url": ("sc:URL", "The URL as crawled."),
    "domain": ("sc:Text", "The mix domain."),
    "date": ("sc:DateTime", "When it was crawled or published."),
}


def render(card: CardData) -> dict[str, Any]:
    """The JSON-LD object."""
    documents = [f for f in card.files if f["path"].startswith("result/documents/")]
    shards = [f for f in card.files if f["path"].startswith("result/shards/")]
    licences = sorted({s["licence"] for s in card.sources if s["licence"] != UNDECLARED})
    undeclared = [s["name"] for s in card.sources if s["licence"] == UNDECLARED]
    stated = [*licences, *([f"{UNDECLARED}: {', '.join(undeclared)}"] if undeclared else [])]
    made: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": card.name,
        "description": (
            f"{card.kept:,} documents out of {card.records:,} records, curated by Gristmill. card.md lists what "
            "was dropped by which rule, and the known limits."
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": stated if len(stated) > 1 else stated[0],
        "version": f"{card.generation}.0.0",
        "citeAs": f"{card.name}, curated by Gristmill {__version__}, fingerprint {card.run['fingerprint']}",
        "isBasedOn": [s["origin"] for s in card.sources if s.get("origin")],
        "rai:dataCollection": "; ".join(
            f"{s['name']}: {s['files']} files read as {s['read']}, licence {s['licence']}" for s in card.sources
        ),
        "rai:dataPreprocessingProtocol": [
            f"{s['name']}: {s['reached']} documents in, {s['left']} left"
            + "".join(f"; {rule} dropped {what['dropped']}" for rule, what in s["rules"].items() if what["dropped"])
            for s in card.steps
        ],
        "rai:personalSensitiveInformation": _personal(card),
        "rai:dataLimitations": card.limits,
        "distribution": [*map(_file, documents), *map(_file, shards)],
    }
    if not made["isBasedOn"]:
        del made["isBasedOn"]
    if card.made:
        made["datePublished"] = card.made
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
                "description": "The kept documents.",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"documents/{column}",
                        "name": column,
                        "description": description,
                        "dataType": kind,
                        "source": {"fileSet": {"@id": "documents-files"}, "extract": {"column": column}},
                    }
                    for column, (kind, description) in _COLUMNS.items()
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


def _personal(card: CardData) -> str:
    step = next((s for s in card.steps if s["step"] == "pii"), None)
    if step is None:
        return "Personal data was not removed: the pipeline has no pii step."
    found = card.signals.get(step["name"], {})
    counts = [f"{n.upper()} {s.total:.0f}" for n, s in found.items() if s.quantiles and n not in ("total", "spared")]
    return f"Replaced before anything was stored, over {card.rows} records: {', '.join(counts) or 'none'}."
