"""Scans an input: finds its files, detects their formats by content, and groups them into sources."""

from __future__ import annotations

import glob
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from curation import storage
from curation.core.errors import UserError
from curation.input_files import InputFile, is_housekeeping, list_inputs
from pipelines.init.dataset_card import find_dataset_card
from pipelines.init.detect_format import FileFormat, detect_format
from pipelines.init.file_groups import Group, InputScan
from pipelines.init.globs import MAX_PATTERNS, find_globs, suffix_of
from pipelines.init.sample_documents import measure_groups

MAX_OPENED = 400  # files whose content is looked at; of more, some of every folder and suffix
HIDDEN = "hidden, or another program's file beside the data"
DESCRIPTION = "description of a Hugging Face dataset"
MIXED = f"no {MAX_PATTERNS} globs select them; sort them into folders by format"


def scan_inputs(inputs: Sequence[str], language_model: str = "lid.176") -> InputScan:
    """Scans files, folders and URLs. Raises UserError for an input that is missing or has no text."""
    scan = InputScan([], {}, False)
    for given in inputs:
        _scan_input(given, scan)
    if not scan.groups:
        reasons = "; ".join(f"{reason}: {', '.join(paths[:3])}" for reason, paths in scan.left_out.items())
        raise UserError(
            f"no text found in {', '.join(inputs)}: {reasons or 'no files'}\n"
            "  expected WARC, WET, ARC, JSON Lines, JSON, CSV, TSV, Parquet, Arrow, HTML or plain text"
        )
    scan.groups.sort(key=lambda g: -g.bytes)
    measure_groups(scan, language_model)
    return scan


def _scan_input(given: str, scan: InputScan) -> None:
    fs, inner = storage.filesystem(given)
    if not fs.exists(inner):
        raise UserError(
            f"{given}: no such file or folder\n  give the files or folders that gristmill curate is to read"
        )
    root, pattern = (given, "**/*") if fs.isdir(inner) else posixpath.split(given)
    root = root or "."
    pattern = pattern if pattern == "**/*" else glob.escape(pattern)
    files = list_inputs(root, pattern)
    matched = {f.path for f in files}
    elsewhere = {_real_path(g.root, f.path) for g in scan.groups for f in g.files}
    hidden = [f.path.split("/") for f in list_inputs(root, pattern, hidden=True) if f.path not in matched]
    for path in dict.fromkeys(_up_to_housekeeping(parts) for parts in hidden):
        scan.leave_out(HIDDEN, root, path)
    card = find_dataset_card(root, files)
    for path in card.files:
        scan.leave_out(DESCRIPTION, root, path)
    files = [file for file in files if file.path not in card.files]
    formats = _detect_formats(root, files)
    members: dict[FileFormat, list[InputFile]] = {}
    harmless: list[str] = []
    for file in files:
        form = formats[file.path]
        if isinstance(form, str):
            scan.leave_out(form, root, file.path)
            harmless.append(file.path)
        elif _real_path(root, file.path) in elsewhere:
            scan.leave_out("already found through another input", root, file.path)
        else:
            members.setdefault(form, []).append(file)
    for group in _group(root, members, [*harmless, *card.files], scan):
        if group.patterns:
            group.licence = card.licence
            scan.groups.append(group)


def _up_to_housekeeping(parts: list[str]) -> str:
    """`a/.git` for a/.git/objects/0b: the whole folder is left out."""
    ends = next((i for i, part in enumerate(parts) if is_housekeeping(part)), len(parts))
    return "/".join(parts[: ends + 1])


def _real_path(root: str, path: str) -> str:
    full = storage.join(root, path)
    return full if storage.is_remote(full) else os.path.realpath(full.removeprefix("file://"))


def _detect_formats(root: str, files: Sequence[InputFile]) -> dict[str, FileFormat | str]:
    """The format of each file, or the reason why it is left out. A file that is not opened has the commonest format of
    the opened ones in its folder with its suffix: one empty or broken file says nothing about the others."""
    formats = {file.path: detect_format(root, file) for file in _chosen(files)}
    by_kind: dict[tuple[str, str], Counter[FileFormat | str]] = {}
    for path, form in formats.items():
        by_kind.setdefault(_kind(path), Counter())[form] += 1
    for file in files:
        if file.path not in formats:
            found = by_kind[_kind(file.path)].most_common()
            usual = next((form for form, _ in found if isinstance(form, FileFormat)), found[0][0])
            formats[file.path] = usual if file.size else "empty"
    return formats


def _group(
    root: str, members: Mapping[FileFormat, list[InputFile]], harmless: list[str], scan: InputScan
) -> list[Group]:
    """A group for each format. Where no globs tell two formats apart that differ only in what a sample of each file
    happened to show (no date in one, each id once in another), their files are one group with the commoner format."""
    every = [file.path for files in members.values() for file in files]
    groups = list[Group]()
    left_over: list[tuple[FileFormat, list[str]]] = []
    for form, files in members.items():
        for options, part in _by_reader_options(form, files).items():
            own = {f.path for f in part}
            globs, left = find_globs([f.path for f in part], [p for p in every if p not in own], harmless)
            groups.append(Group(form, root, globs, [f for f in part if f.path not in set(left)], *options))
            left_over += [(form, left)] if left else []
    for form, left in left_over:
        kinds = set(map(_kind, left))
        alike = [
            other for other, files in members.items()
            if _similar(other) == _similar(form) and any(_kind(f.path) in kinds for f in files)
        ]  # fmt: skip
        if len(alike) > 1:
            usual = max(alike, key=lambda form: len(members[form]))
            merged = {other: files for other, files in members.items() if other not in alike}
            merged[usual] = [file for other in alike for file in members[other]]
            return _group(root, merged, harmless, scan)
    for _, left in left_over:
        for path in left:
            scan.leave_out(MIXED, root, path)
    return groups


def _similar(form: FileFormat) -> tuple[str, str, str]:
    return form.read, form.form, form.text


def _kind(path: str) -> tuple[str, str]:
    return posixpath.dirname(path), suffix_of(path)


def _chosen(files: Sequence[InputFile]) -> Iterable[InputFile]:
    """All files; of too many, one of every folder and suffix and others evenly spaced."""
    if len(files) <= MAX_OPENED:
        return files
    first = {_kind(f.path): f for f in sorted(files, key=lambda f: f.size > 0)}  # an empty one only if all are
    return {f.path: f for f in [*first.values(), *files[:: len(files) // MAX_OPENED]]}.values()


def _by_reader_options(form: FileFormat, files: Sequence[InputFile]) -> dict[tuple[str, str], list[InputFile]]:
    """Files by (format, media type): the options that their reader needs because the suffix does not say it."""
    from curation.sources.text.plain_text import is_html_path
    from curation.sources.text.text import format_by_suffix

    parts: dict[tuple[str, str], list[InputFile]] = {}
    for file in files:
        by_name = format_by_suffix(file.path)
        # a .json file may hold JSON Lines: the reader looks
        known = form.read != "text" or by_name == form.form or (by_name == "json" and form.form == "jsonl")
        read_as = "auto" if known else form.form
        named = form.read != "text" or (form.form == "text" and is_html_path(file.path))
        parts.setdefault((read_as, "text/html" if form.html and not named else "text/plain"), []).append(file)
    return parts
