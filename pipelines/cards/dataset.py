"""A run's data card: Markdown with the front matter of a Hugging Face dataset card, to be uploaded as it is.

Figures come from `facts`; here they only become words and tables. Nothing in a card says where on a machine files lay.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

from curation import __version__
from pipelines.cards.facts import UNDECLARED, Facts, Signal
from pipelines.monitor.progress import size

# Names that the Hub knows licences by; any other declared one is `other`, an undeclared one `unknown`.
LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0"),
        *("cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odc-by", "odbl"),
        *("pddl", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "ecl-2.0"),
        *("epl-1.0", "epl-2.0", "eupl-1.1", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl"),
        *("lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "ncsa", "ofl-1.1", "osl-3.0", "postgresql"),
        *("unlicense", "wtfpl", "zlib"),
    )
)
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGER = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))
SHOWN = 3  # values of a word that the table of signals names
REPEATED = 3  # times that a word's values come again on average, else they are titles or ids


def render(facts: Facts) -> str:
    """The card."""
    sections = [
        f"# {facts.name}",
        _opening(facts),
        "## Sources",
        _sources(facts),
        "## What became of every record",
        _funnel(facts),
        *_deduplication(facts),
        *_personal(facts),
        "## What the steps measured",
        _signals(facts),
        *_tokens(facts),
        "## Known limits",
        "\n".join(f"- {line}" for line in facts.limits),
        "## How to make it again",
        _again(facts),
        "## Checksums",
        _checksums(facts),
    ]
    return front_matter(_metadata(facts)) + "\n" + "\n\n".join(sections) + "\n"


def front_matter(values: dict[str, Any]) -> str:
    """YAML between two lines of dashes."""
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def table(head: list[str], rows: list[list[Any]], right: int = 0) -> str:
    """A Markdown table, the last `right` columns to the right."""
    line = ["---"] * (len(head) - right) + ["---:"] * right
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in [head, line, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def licence_id(licence: str) -> str:
    """A declared licence as the Hub names it."""
    if licence == UNDECLARED:
        return "unknown"
    return licence.lower() if licence.lower() in LICENCES else "other"


def _metadata(facts: Facts) -> dict[str, Any]:
    languages = [c for c, n in facts.kept_languages.most_common() if n * 100 >= facts.kept_languages.total()]
    values: dict[str, Any] = {"pretty_name": facts.name}
    if languages:
        values["language"] = languages
    values["license"] = sorted({licence_id(s["licence"]) for s in facts.sources})
    values["size_categories"] = [next((n for most, n in (*_SIZES, *_LARGER) if facts.kept < most), "100B<n<1T")]
    values["task_categories"] = ["text-generation"]
    values["tags"] = ["gristmill", "pretraining"]
    if any(f["path"].startswith("result/documents/") for f in facts.files):
        documents = {"split": "train", "path": "result/documents/*.parquet"}
        values["configs"] = [{"config_name": "documents", "data_files": [documents], "default": True}]
    return values


def _opening(facts: Facts) -> str:
    bytes_ = facts.run["counts"].get("text_bytes", 0)
    said = f"{facts.kept:,} documents, {size(bytes_)} of text, out of {facts.records:,} records"
    if facts.manifest:
        tokens = sum(d["tokens"] for split in facts.manifest["splits"].values() for d in split.values())
        said += f"; {tokens:,} tokens"
    said += f". Curated by Gristmill {__version__}; fingerprint `{facts.run['fingerprint']}`"
    said += f", generation {facts.generation}."
    if facts.deleted:
        said += f" {facts.deleted:,} documents or addresses were deleted since the first generation."
    return said


def _sources(facts: Facts) -> str:
    rows = [
        [s["name"], s["domain"], s["read"], f"{s['files']:,}", size(s["bytes"]), s["licence"], s.get("origin") or ""]
        for s in facts.sources
    ]
    return table(["source", "domain", "reader", "files", "stored", "licence", "origin"], rows)


def _funnel(facts: Facts) -> str:
    rows = [["records read", "", "", "", f"{facts.records:,}"]]
    for step in facts.steps:
        if not step["rules"] and step["name"] != "read":
            rows.append([_called(step), "no rule: measures, or rewrites", "", "0", f"{step['left']:,}"])
        left = step["reached"]
        for rule, what in step["rules"].items():
            left -= what["dropped"]
            sql = f"`{what['sql']}`" if what["sql"] else ""
            rows.append([_called(step), rule, sql, f"{what['dropped']:,}", f"{left:,}"])
    rows.append(["**kept**", "", "", "", f"**{facts.kept:,}**"])
    domains = ", ".join(f"{d} {n:,}" for d, n in facts.run["counts"].get("domains", {}).items())
    return (
        table(["step", "rule", "stays where", "dropped", "left"], rows, 2) + f"\n\nKept by domain: {domains or 'none'}."
    )


def _called(step: dict[str, Any]) -> str:
    return str(step["name"]) if step["name"] == step["step"] else f"{step['name']} ({step['step']})"


def _deduplication(facts: Facts) -> list[str]:
    rows = []
    for step in facts.steps:
        stages = facts.run["stages"].get(step["name"])
        if stages is None or "dedup" not in step["step"]:
            continue
        counters: Counter[str] = Counter()
        for stage in stages:
            for key in ("candidates", "met", "skipped", "unmet", "edges"):
                counters[key] += stage.get("counters", {}).get(key, 0)
        dropped = sum(r["dropped"] for r in step["rules"].values())
        share = dropped / step["reached"] if step["reached"] else 0.0
        found = [f"{counters[k]:,}" if "minhash" in step["step"] else "" for k in ("met", "edges", "unmet")]
        rows.append([_called(step), f"{step['reached']:,}", f"{dropped:,}", f"{share:.1%}", *found])
    if not rows:
        return []
    head = ["step", "documents", "removed", "share", "pairs looked at", "pairs alike", "not looked at"]
    said = "A near-duplicate goes only where a document that stays was compared with it in full; the ledger names it."
    return ["## Duplicates", table(head, rows, 6) + f"\n\n{said}"]


def _personal(facts: Facts) -> list[str]:
    parts = []
    for step in facts.steps:
        if step["step"] != "pii":
            continue
        rows = []
        for name, signal in facts.signals.get(step["name"], {}).items():
            if name not in ("spans", "total", "spared") and signal.quantiles is not None:
                rows.append([name.upper(), f"{signal.total:,.0f}"])
        spared = facts.signals.get(step["name"], {}).get("spared", Signal()).total
        actions = step["options"].get("actions") or "masked"
        parts += [
            "## Personal data",
            f"Found by the step {_called(step)} before anything was stored, and {actions}:",
            table(["entity", "replaced"], rows, 1),
            f"{spared:,.0f} more were left alone, as they lead to nobody (see docs/pii.md).{_counted(facts)}",
        ]
    return parts


def _counted(facts: Facts) -> str:
    return "" if facts.rows >= facts.records else f" Counted over {facts.rows:,} of {facts.records:,} records."


def _signals(facts: Facts) -> str:
    rows = []
    for step, signals in facts.signals.items():
        for name, s in signals.items():
            if s.quantiles is not None:
                rows.append([f"{step}.{name}", f"{s.count:,}", *(f"{q:.4g}" for q in s.quantiles)])
            elif s.values and s.count >= REPEATED * len(s.values) and not _ids(s.values):
                most = ", ".join(f"{v} {n:,}" for v, n in s.values.most_common(SHOWN))
                more = f", {len(s.values) - SHOWN} more" if len(s.values) > SHOWN else ""
                rows.append([f"{step}.{name}", f"{s.count:,}", most + more, "", ""])
    if not rows:
        return "No step of this run measures anything."
    said = f"\n\nOver the documents that reached each step.{_counted(facts)}"
    return table(["signal", "documents", "10 %", "median", "90 %"], rows, 4) + said


def _ids(values: Counter[str]) -> bool:
    """Whether these are ids of documents: which one a duplicate was of is no distribution."""
    return bool(re.fullmatch("[0-9a-f]{32}", next(iter(values))))


def _tokens(facts: Facts) -> list[str]:
    if not facts.manifest:
        return []
    made, rows = facts.manifest, []
    for split, domains in made["splits"].items():
        for domain, d in domains.items():
            weight = made["mix"]["weights"].get(domain, 0) if split == "train" else None
            epochs = made["mix"]["epochs"].get(domain) if split == "train" else None
            rows.append(
                [split, domain, f"{d['documents']:,}", f"{d['tokens']:,}"]
                + ["" if v is None else f"{v:.4g}" for v in (weight, epochs)]
                + [f"{d['text_bytes'] / max(1, d['tokens'] - d['documents']):.2f}"]
            )
    t, budget = made["tokenizer"], made["mix"].get("budget")
    return [
        "## Mix and tokenizer",
        table(["split", "domain", "documents", "tokens", "weight", "epochs", "bytes a token"], rows, 5),
        f"Tokenizer: {t['kind']}, {t['vocab']:,} entries, SHA-256 `{t['sha256']}`"
        + (f". Budget of the mix: {budget:,} tokens." if budget else "."),
    ]


def _again(facts: Facts) -> str:
    versions = {k: v for k, v in facts.run["versions"].items() if v != "absent"}
    text = yaml.safe_dump(facts.file, sort_keys=False, allow_unicode=True, width=110)
    return (
        "The same input, this file and these versions give the same bytes on any number of workers:\n\n"
        f"```yaml\n{text}```\n\n"
        f"`gristmill curate {facts.name}.yaml --run runs/{facts.name}`\n\n"
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}."
    )


def _checksums(facts: Facts) -> str:
    if not facts.files:
        return "Not recorded: the run was made before runs recorded them. `gristmill curate` again, and they are."
    shown = [f for f in facts.files if not f["path"].startswith(("result/ledger/", "result/urls/"))]
    rows = [[f"`{f['path']}`", f"{f['bytes']:,}", f"`{f['sha256']}`"] for f in shown[:200]]
    said = f"\n\n{len(shown) - 200:,} more in croissant.json." if len(shown) > 200 else ""
    return table(["file", "bytes", "SHA-256"], rows) + said
