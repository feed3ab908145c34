"""Renders the data card of a run: Markdown with the front matter of a Hugging Face dataset card, ready to upload.

The figures come from card_data.py. A card contains no paths of the machine that made it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

from curation import __version__
from curation.config.where_condition import one_line
from pipelines.cards.card_data import UNDECLARED, CardData, Signal
from pipelines.number_format import format_bytes

# Licence identifiers of the Hugging Face Hub; another declared licence is `other`, an undeclared one `unknown`.
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
SHOWN = 3  # most common values of a string signal that the table names
MIN_REPEATS = 3  # documents per value of a string signal on average; with fewer the values are titles or ids


def render(card: CardData) -> str:
    """The card."""
    sections = [
        f"# {card.name}",
        _summary(card),
        "## Sources",
        _sources(card),
        "## Records kept and dropped",
        _funnel(card),
        *_deduplication(card),
        *_personal(card),
        "## Signals",
        _signals(card),
        *_tokens(card),
        "## Known limits",
        "\n".join(f"- {line}" for line in card.limits),
        "## How to reproduce it",
        _reproduce(card),
        "## Checksums",
        _checksums(card),
    ]
    return front_matter(_metadata(card)) + "\n" + "\n\n".join(sections) + "\n"


def front_matter(values: dict[str, Any]) -> str:
    """YAML front matter."""
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def table(head: list[str], rows: list[list[Any]], right: int = 0) -> str:
    """A Markdown table; the last `right` columns are right-aligned."""
    line = ["---"] * (len(head) - right) + ["---:"] * right
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in [head, line, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def licence_id(licence: str) -> str:
    """The Hub's identifier of a declared licence."""
    if licence == UNDECLARED:
        return "unknown"
    return licence.lower() if licence.lower() in LICENCES else "other"


def _metadata(card: CardData) -> dict[str, Any]:
    languages = [c for c, n in card.kept_languages.most_common() if n * 100 >= card.kept_languages.total()]
    values: dict[str, Any] = {"pretty_name": card.name}
    if languages:
        values["language"] = languages
    values["license"] = sorted({licence_id(s["licence"]) for s in card.sources})
    values["size_categories"] = [next((n for most, n in (*_SIZES, *_LARGER) if card.kept < most), "100B<n<1T")]
    values["task_categories"] = ["text-generation"]
    values["tags"] = ["gristmill", "pretraining"]
    if any(f["path"].startswith("result/documents/") for f in card.files):
        documents = {"split": "train", "path": "result/documents/*.parquet"}
        values["configs"] = [{"config_name": "documents", "data_files": [documents], "default": True}]
    return values


def _summary(card: CardData) -> str:
    bytes_ = card.run["counts"].get("text_bytes", 0)
    text_ = f"{card.kept:,} documents, {format_bytes(bytes_)} of text, out of {card.records:,} records"
    if card.manifest:
        tokens = sum(d["tokens"] for split in card.manifest["splits"].values() for d in split.values())
        text_ += f"; {tokens:,} tokens"
    text_ += f". Curated by Gristmill {__version__}; fingerprint `{card.run['fingerprint']}`"
    text_ += f", generation {card.generation}."
    if card.deleted:
        text_ += f" {card.deleted:,} documents or URLs were deleted since the first generation."
    return text_


def _sources(card: CardData) -> str:
    rows = [
        [
            s["name"],
            s["domain"],
            s["read"],
            f"{s['files']:,}",
            format_bytes(s["bytes"]),
            s["licence"],
            s.get("origin") or "",
        ]
        for s in card.sources
    ]
    return table(["source", "domain", "reader", "files", "stored", "licence", "origin"], rows)


def _funnel(card: CardData) -> str:
    rows = [["records read", "", "", "", f"{card.records:,}"]]
    for step in card.steps:
        if not step["rules"] and step["name"] != "read":
            rows.append([_step_name(step), "no rule", "", "0", f"{step['left']:,}"])
        left = step["reached"]
        for rule, what in step["rules"].items():
            left -= what["dropped"]
            sql = f"`{one_line(what['sql'])}`" if what["sql"] else ""
            rows.append([_step_name(step), rule, sql, f"{what['dropped']:,}", f"{left:,}"])
    rows.append(["**kept**", "", "", "", f"**{card.kept:,}**"])
    domains = ", ".join(f"{d} {n:,}" for d, n in card.run["counts"].get("domains", {}).items())
    return table(["step", "rule", "keep if", "dropped", "left"], rows, 2) + f"\n\nKept by domain: {domains or 'none'}."


def _step_name(step: dict[str, Any]) -> str:
    return str(step["name"]) if step["name"] == step["step"] else f"{step['name']} ({step['step']})"


def _deduplication(card: CardData) -> list[str]:
    rows = []
    for step in card.steps:
        stages = card.run["stages"].get(step["name"])
        if stages is None or "dedup" not in step["step"]:
            continue
        counters: Counter[str] = Counter()
        for stage in stages:
            for key in ("candidates", "met", "skipped", "unmet", "edges"):
                counters[key] += stage.get("counters", {}).get(key, 0)
        dropped = sum(r["dropped"] for r in step["rules"].values())
        share = dropped / step["reached"] if step["reached"] else 0.0
        found = [f"{counters[k]:,}" if "minhash" in step["step"] else "" for k in ("met", "edges", "unmet")]
        rows.append([_step_name(step), f"{step['reached']:,}", f"{dropped:,}", f"{share:.1%}", *found])
    if not rows:
        return []
    head = ["step", "documents", "removed", "share", "pairs compared", "duplicate pairs", "pairs skipped"]
    note = "A near-duplicate is removed only if it was compared in full with a kept document, which the ledger names."
    return ["## Duplicates", table(head, rows, 6) + f"\n\n{note}"]


def _personal(card: CardData) -> list[str]:
    parts = []
    for step in card.steps:
        if step["step"] != "pii":
            continue
        rows = []
        for name, signal in card.signals.get(step["name"], {}).items():
            if name not in ("spans", "total", "spared") and signal.quantiles is not None:
                rows.append([name.upper(), f"{signal.total:,.0f}"])
        spared = card.signals.get(step["name"], {}).get("spared", Signal()).total
        actions = step["options"].get("actions") or "masked"
        parts += [
            "## Personal data",
            f"Found by the step {_step_name(step)} before anything was stored; replacement: {actions}.",
            table(["entity", "replaced"], rows, 1),
            f"{spared:,.0f} more were left in place because they identify no person (see docs/pii.md).{_counted(card)}",
        ]
    return parts


def _counted(card: CardData) -> str:
    return "" if card.rows >= card.records else f" Counted over {card.rows:,} of {card.records:,} records."


def _signals(card: CardData) -> str:
    rows = []
    for step, signals in card.signals.items():
        for name, s in signals.items():
            if s.quantiles is not None:
                rows.append([f"{step}.{name}", f"{s.count:,}", *(f"{q:.4g}" for q in s.quantiles)])
            elif s.values and s.count >= MIN_REPEATS * len(s.values) and not _ids(s.values):
                most = ", ".join(f"{v} {n:,}" for v, n in s.values.most_common(SHOWN))
                more = f", {len(s.values) - SHOWN} more" if len(s.values) > SHOWN else ""
                rows.append([f"{step}.{name}", f"{s.count:,}", most + more, "", ""])
    if not rows:
        return "No step of this run computes a signal."
    text_ = f"\n\nOver the documents that reached each step.{_counted(card)}"
    return table(["signal", "documents", "10 %", "median", "90 %"], rows, 4) + text_


def _ids(values: Counter[str]) -> bool:
    """Whether these are document ids, such as the ones that duplicates refer to."""
    return bool(re.fullmatch("[0-9a-f]{32}", next(iter(values))))


def _tokens(card: CardData) -> list[str]:
    if not card.manifest:
        return []
    made, rows = card.manifest, []
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
        table(["split", "domain", "documents", "tokens", "weight", "epochs", "bytes per token"], rows, 5),
        f"Tokenizer: {t['kind']}, {t['vocab']:,} entries, SHA-256 `{t['sha256']}`"
        + (f". Budget of the mix: {budget:,} tokens." if budget else "."),
    ]


def _reproduce(card: CardData) -> str:
    versions = {k: v for k, v in card.run["versions"].items() if v != "absent"}
    text = yaml.safe_dump(card.file, sort_keys=False, allow_unicode=True, width=110)
    return (
        "The same input, pipeline file and versions give the same bytes on any number of workers:\n\n"
        f"```yaml\n{text}```\n\n"
        f"`gristmill curate {card.name}.yaml --run runs/{card.name}`\n\n"
        f"Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}."
    )


def _checksums(card: CardData) -> str:
    if not card.files:
        return "Not recorded by the version that made this run. Run `gristmill curate` again to record them."
    shown = [f for f in card.files if not f["path"].startswith(("result/ledger/", "result/urls/"))]
    rows = [[f"`{f['path']}`", f"{f['bytes']:,}", f"`{f['sha256']}`"] for f in shown[:200]]
    text_ = f"\n\n{len(shown) - 200:,} more in croissant.json." if len(shown) > 200 else ""
    return table(["file", "bytes", "SHA-256"], rows) + text_
