"""A first pipeline file for an input that was looked at: every choice with the reason for it beside it.

What it holds is meant to be changed. So it is short, runs as it stands, and says as comments what was seen, what each
step is for and what else there is.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from curation.storage import is_remote
from pipelines.init.file_groups import Group, Look, reader_options
from pipelines.monitor.progress import size

PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./=+-]*")
SHARE = 0.05  # of the sampled documents: from here on a language is named in the rule
ONE = 0.6  # from here on one language is the rule by itself
LEAST = 0.1  # of the sample: where Gopher's rules would keep less, this is no text that they were made for


def write(found: Look, name: str, beside: str) -> str:
    """The text of the pipeline file. `beside` is the folder it will lie in: local roots are written as seen from it."""
    domains = list(dict.fromkeys(g.shape.domain for g in found.groups))
    parts = [
        _head(found, name),
        "sources:",
        *_sources(found, beside),
        "",
        *_steps(found, domains),
        *_end(found, domains),
    ]
    return "\n".join(parts) + "\n"


def _head(found: Look, name: str) -> str:
    lines = [
        "# Made by `gristmill init` from a look at the input. Read it, change it, then:",
        "#",
        f"#   gristmill plan {name}.yaml       what it would do",
        f"#   gristmill curate {name}.yaml     does it; again: only what a change touches is done anew",
        "#",
        "# What was seen:",
    ]
    for g in found.groups:
        lines.append(f"#   {files(len(g.files))}, {size(g.bytes)}, {_form(g)}, below {g.root}")
        if g.documents:
            lines.append(f"#     {g.documents:,} documents sampled, the middle one of {g.words:,} words{_spoken(g)}")
        if g.hosts:
            most = ", ".join(f"{h} {n}" for h, n in g.hosts.most_common(5))
            lines.append(f"#     hosts: {most}" + (f", {len(g.hosts) - 5} more" if len(g.hosts) > 5 else ""))
    for reason, paths in sorted(found.left_out.items()):
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
        lines.append(f"#   left out, {reason}: {shown}")
    if found.cut:
        lines.append(f"#   left out, too mixed for a glob: {found.cut:,} files; sort them into folders of one kind")
    return "\n".join([*lines, f"name: {name}", "seed: 17    # of everything that is drawn", ""])


def files(count: int) -> str:
    """`1 file`, `2,011 files`."""
    return f"{count:,} file{'' if count == 1 else 's'}"


def _form(group: Group) -> str:
    words = {"warc": "archives of a crawl", "jsonl": "JSON Lines", "parquet": "Parquet", "arrow": "Arrow"}
    form = words.get(group.shape.form, "pages" if group.shape.html else "one document each")
    named = f", text in {group.shape.text!r}" if group.shape.form in ("jsonl", "parquet", "arrow") else ""
    return form + named


def _spoken(group: Group) -> str:
    total = sum(group.languages.values())
    most = [f"{c} {n / total:.0%}" for c, n in group.languages.most_common(8) if n >= total / 100]
    others = len(group.languages) - len(most)
    return "; languages: " + ", ".join(most) + (f", {others} more" if others else "") if total else ""


def _sources(found: Look, beside: str) -> list[str]:
    lines = ["  # the domain is what `mix` weighs; `licence: CC-BY-4.0` on a source goes into the data card"]
    used: dict[str, int] = {}
    for g in found.groups:
        root = g.root if is_remote(g.root) or os.path.isabs(g.root) else os.path.relpath(g.root, beside or ".")
        for pattern in g.patterns:
            number = used[g.shape.domain] = used.get(g.shape.domain, 0) + 1
            name = g.shape.domain if number == 1 else f"{g.shape.domain}-{number}"
            keys = {"name": name, "domain": g.shape.domain, "read": g.shape.read, "root": root, "path": pattern}
            lines.append("  - {" + ", ".join(f"{k}: {_value(v)}" for k, v in (keys | reader_options(g)).items()) + "}")
        if g.shape.id:
            lines.append(
                f"    # `id: {_value(g.shape.id)}` would tie document ids to that field; files are then not cut"
            )
    return lines


def _value(value: Any) -> str:
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off")
    return text if plain else json.dumps(text, ensure_ascii=False).replace("${", "$${")


def _steps(found: Look, domains: list[str]) -> list[str]:
    prose = [g for g in found.groups if g.shape.domain != "code"]
    where = ["    where: domain <> 'code'"] if "code" in domains else []
    lines = ["steps:"]
    if any(g.shape.html for g in found.groups):
        lines += [
            "  # the main text of pages, without menus and footers; plain text passes as it is",
            "  - extract: {}",
            "",
        ]
    if prose:
        lines += [*_language(found, prose, where), ""]
    lines += [
        "  # e-mail addresses, telephone and card numbers and the like are masked; before anything is stored",
        "  - pii: {}",
        "",
    ]
    if prose:
        share = sum(g.passing for g in prose) / max(1, sum(g.documents for g in prose))
        off, why = (
            ("", f"keep {share:.0%} of the sample") if share >= LEAST else ("# ", f"off: would keep {share:.0%} of it")
        )
        lines += [f"  # Gopher's rules of quality and repetition ({why}); `c4` and `fineweb` are further sets"]
        lines += [f"  {off}- heuristics: {{sets: [gopher]}}", *(f"  {off}{o[2:]}" for o in where), ""]
    return [
        *lines,
        "  # documents of the same text, then of nearly the same: 72 % of 5-word shingles, verified one by one",
        "  - exact_dedup: {}",
        "  - minhash_dedup: {threshold: 0.72}",
        "",
    ]


def _language(found: Look, prose: list[Group], where: list[str]) -> list[str]:
    counts = sum((g.languages for g in prose), type(prose[0].languages)())
    total = sum(counts.values())
    lines = ["  # the language of each document, and how sure the model is of it; FineWeb asks for 0.65"]
    if not found.identified:
        return [
            *lines,
            "  # Off: the model is not on this machine. `gristmill models pull lid.176` brings it (0.9 MB).",
            "  # - language: {}",
            "  #   keep: {language: \"language.code = 'en' AND language.score >= 0.5\"}",
        ]
    if not total:
        return [*lines, "  - language: {}"]
    codes = [c for c, n in counts.most_common() if n >= SHARE * total]
    if counts[codes[0]] >= ONE * total:
        codes = codes[:1]
    listed = ", ".join(f"'{c}'" for c in codes)
    rule = f"language.code = {listed}" if len(codes) == 1 else f"language.code IN ({listed})"
    return [*lines, "  - language: {}", f'    keep: {{language: "{rule} AND language.score >= 0.5"}}', *where]


def _end(found: Look, domains: list[str]) -> list[str]:
    stored = sum(g.bytes for g in found.groups)
    vocab = 4096 if stored < 20 << 20 else 32768 if stored < 20 << 30 else 65536
    weights = ", ".join(f"{d}: {1 / len(domains):.2g}" for d in domains)
    mix = ["# how much of each domain is read; natural is as much as there is"]
    mix += ["mix: {weights: natural}"]
    mix += [f"# mix: {{weights: {{{weights}}}, budget: 1_000_000_000, max_epochs: 4}}"] if len(domains) > 1 else []
    return [
        *mix,
        "",
        "# trained on what stays; {path: tokenizer.json} takes one that there is",
        f"tokenizer: {{train: {{kind: bpe, vocab: {vocab}}}}}",
        "",
        "# the share of documents that training never sees",
        "validation: 0.01",
    ]
