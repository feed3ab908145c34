"""Drafts a pipeline file for a scanned input, with the reason for every choice as a comment.

The file is meant to be edited. It is short, runs as it is, and its comments say what was found, what each step does
and which alternatives exist.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from curation.storage import is_remote
from pipelines.init.file_groups import Group, InputScan, reader_options
from pipelines.number_format import format_bytes

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./=+-]*")
MIN_SHARE = 0.05  # of the sampled documents: a language with at least this share is named in the rule
MAIN_SHARE = 0.6  # a language with at least this share is the only one in the rule
MIN_PASSING = 0.1  # of the sample: if the Gopher rules keep less, they were not made for such text


def draft_pipeline(scan: InputScan, name: str, folder: str) -> str:
    """The text of the pipeline file. `folder`: where it will be; local roots are relative to it."""
    domains = list(dict.fromkeys(g.format.domain for g in scan.groups))
    parts = [
        _head(scan, name),
        "sources:",
        *_sources(scan, folder),
        "",
        *_steps(scan, domains),
        *_end(scan, domains),
    ]
    return "\n".join(parts) + "\n"


def _head(scan: InputScan, name: str) -> str:
    lines = [
        "# Drafted by `gristmill init` from a sample of the input. Read it, edit it, then:",
        "#",
        f"#   gristmill plan {name}.yaml       shows what it will do",
        f"#   gristmill curate {name}.yaml     runs it; after an edit, again: only what the edit affects",
        "#",
        "# Found in the input:",
    ]
    for g in scan.groups:
        lines.append(f"#   {count_files(len(g.files))}, {format_bytes(g.bytes)}, {_format_name(g)}, below {g.root}")
        if g.documents:
            lines.append(f"#     {g.documents:,} documents sampled, median length {g.words:,} words{_languages(g)}")
        if g.hosts:
            most = ", ".join(f"{h} {n}" for h, n in g.hosts.most_common(5))
            lines.append(f"#     hosts: {most}" + (f", {len(g.hosts) - 5} more" if len(g.hosts) > 5 else ""))
    for reason, paths in sorted(scan.left_out.items()):
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
        lines.append(f"#   left out, {reason}: {shown}")
    return "\n".join([*lines, f"name: {name}", "seed: 17    # of sampling and shuffling", ""])


def count_files(count: int) -> str:
    """`1 file`, `2,011 files`."""
    return f"{count:,} file{'' if count == 1 else 's'}"


def _format_name(group: Group) -> str:
    words = {
        "warc": "crawl archives (WARC)", "jsonl": "JSON Lines", "json": "JSON", "csv": "CSV", "tsv": "TSV",
        "parquet": "Parquet", "arrow": "Arrow", "stackexchange": "posts of a Stack Exchange site",
        "gutenberg": "books of Project Gutenberg", "wikipedia": "pages of a wiki",
        "epub": "EPUB books", "latex": "LaTeX sources",
        "code": "source code",
    }  # fmt: skip
    found = group.format
    if found.form in words:
        return words[found.form] + (f", text in {found.text!r}" if found.read == "text" else "")
    if found.marker:
        return f"plain text, documents between {found.marker!r}"
    if found.document != "file":
        between = {"line": "a document per line", "blank_lines": "documents between blank lines"}
        return f"plain text, {between[found.document]} (files larger than any book)"
    return "HTML pages" if found.html else "one document per file"


def _languages(group: Group) -> str:
    total = sum(group.languages.values())
    most = [f"{c} {n / total:.0%}" for c, n in group.languages.most_common(8) if n >= total / 100]
    others = len(group.languages) - len(most)
    return "; languages: " + ", ".join(most) + (f", {others} more" if others else "") if total else ""


def _sources(scan: InputScan, folder: str) -> list[str]:
    lines = ["  # `mix` weighs domains; add `licence: CC-BY-4.0` (or another) to a source for the data card"]
    used: dict[str, int] = {}
    for g in scan.groups:
        root = g.root if is_remote(g.root) or os.path.isabs(g.root) else os.path.relpath(g.root, folder or ".")
        for pattern in g.patterns:
            number = used[g.format.domain] = used.get(g.format.domain, 0) + 1
            name = g.format.domain if number == 1 else f"{g.format.domain}-{number}"
            keys = {"name": name, "domain": g.format.domain, "read": g.format.read, "root": root, "path": pattern}
            options = reader_options(g) | ({"licence": g.licence} if g.licence else {})
            lines.append("  - {" + ", ".join(f"{k}: {_value(v)}" for k, v in (keys | options).items()) + "}")
        if g.format.id:
            lines.append(
                f"    # `id: {_value(g.format.id)}` would make document ids from that field; files are then not split"
            )
    return lines


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off")
    return text if plain else json.dumps(text, ensure_ascii=False).replace("${", "$${")


def _steps(scan: InputScan, domains: list[str]) -> list[str]:
    prose = [g for g in scan.groups if g.format.domain != "code"]
    where = ["    where: domain <> 'code'"] if "code" in domains else []
    lines = ["steps:"]
    if any(g.format.html for g in scan.groups):
        lines += [
            "  # extracts the main text of HTML pages, without menus and footers; plain text is left as it is",
            "  - extract: {}",
            "",
        ]
    if prose:
        lines += [*_language(scan, prose, where), ""]
    lines += [
        "  # replaces personal data (e-mail addresses, telephone and card numbers, …) before anything is stored",
        "  - pii: {}",
        "",
    ]
    if prose:
        share = sum(g.passing for g in prose) / max(1, sum(g.documents for g in prose))
        off, why = (
            ("", f"they keep {share:.0%} of the sample")
            if share >= MIN_PASSING
            else ("# ", f"off: they would keep only {share:.0%} of the sample")
        )
        lines += [f"  # Gopher's quality and repetition rules ({why}); other sets: `c4`, `fineweb`"]
        lines += [f"  {off}- heuristics: {{sets: [gopher]}}", *(f"  {off}{o[2:]}" for o in where), ""]
    return [
        *lines,
        "  # exact duplicates, then near-duplicates: 72 % of 5-word shingles in common, verified pair by pair",
        "  - exact_dedup: {}",
        "  - minhash_dedup: {threshold: 0.72}",
        "",
    ]


def _language(scan: InputScan, prose: list[Group], where: list[str]) -> list[str]:
    counts = sum((g.languages for g in prose), type(prose[0].languages)())
    total = sum(counts.values())
    lines = ["  # identifies the language of each document, with a score; FineWeb requires 0.65"]
    if not scan.identified:
        return [
            *lines,
            "  # Off: the model is not on this machine. Download it: gristmill models pull lid.176 (0.9 MB).",
            "  # - language: {}",
            "  #   keep: {language: \"language.code = 'en' AND language.score >= 0.5\"}",
        ]
    if not total:
        return [*lines, "  - language: {}"]
    codes = [c for c, n in counts.most_common() if n >= MIN_SHARE * total]
    if counts[codes[0]] >= MAIN_SHARE * total:
        codes = codes[:1]
    listed = ", ".join(f"'{c}'" for c in codes)
    rule = f"language.code = {listed}" if len(codes) == 1 else f"language.code IN ({listed})"
    return [*lines, "  - language: {}", f'    keep: {{language: "{rule} AND language.score >= 0.5"}}', *where]


def _end(scan: InputScan, domains: list[str]) -> list[str]:
    stored = sum(g.bytes for g in scan.groups)
    vocab = 4096 if stored < 20 << 20 else 32768 if stored < 20 << 30 else 65536
    weights = ", ".join(f"{d}: {1 / len(domains):.2g}" for d in domains)
    mix = ["# share of each domain in training; natural: in proportion to its tokens"]
    mix += ["mix: {weights: natural}"]
    mix += [f"# mix: {{weights: {{{weights}}}, budget: 1_000_000_000, max_epochs: 4}}"] if len(domains) > 1 else []
    return [
        *mix,
        "",
        "# trained on the kept documents; {path: tokenizer.json} uses an existing tokenizer",
        f"tokenizer: {{train: {{kind: bpe, vocab: {vocab}}}}}",
        "",
        "# share of documents held out for validation",
        "validation: 0.01",
    ]
