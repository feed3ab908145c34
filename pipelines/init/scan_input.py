"""Scans an input: finds its files, detects their formats by content, and groups them into sources."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from curation import storage
from curation.core.errors import UserError
from pipelines.init.detect_format import FileFormat, detect_format
from pipelines.init.file_groups import Group, InputScan
from pipelines.init.globs import find_globs, suffix_of
from pipelines.init.sample_documents import measure_groups

MAX_OPENED = 400  # files whose content is looked at; of more, some of every folder and suffix


def scan_inputs(inputs: Sequence[str], language_model: str = "lid.176") -> InputScan:
    """Scans files, folders and URLs. Raises UserError for an input that is missing or has no text."""
    scan = InputScan([], {}, False)
    for given in inputs:
        _scan_input(given, scan)
    if not scan.groups:
        reasons = "; ".join(f"{reason}: {', '.join(paths[:3])}" for reason, paths in scan.left_out.items())
        raise UserError(
            f"no text found in {', '.join(inputs)}: {reasons or 'no files'}\n"
            "  expected WARC, WET, ARC, JSON Lines, Parquet, Arrow, HTML or plain text"
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
    root, only = (given, None) if fs.isdir(inner) else posixpath.split(given)
    root = root or "."
    files = storage.list_inputs(root, only if only is not None else "**/*")
    shown = [f for f in files if only or not any(part.startswith((".", "_")) for part in f.path.split("/"))]
    formats: dict[str, FileFormat | str] = {}
    for file in _chosen(shown):
        formats[file.path] = detect_format(root, file)
    by_kind = {_kind(path): form for path, form in formats.items()}
    members: dict[FileFormat, list[storage.InputFile]] = {}
    for file in shown:
        form = formats.get(file.path) or by_kind[_kind(file.path)]
        if isinstance(form, str):
            scan.left_out.setdefault(form, []).append(posixpath.join(root, file.path))
        else:
            members.setdefault(form, []).append(file)
    for form, grouped in members.items():
        for options, part in _by_reader_options(form, grouped).items():
            globs, unmatched = find_globs([f.path for f in part], [f.path for f in files])
            scan.unmatched += unmatched
            scan.groups.append(Group(form, root, globs, part, *options))


def _kind(path: str) -> tuple[str, str]:
    return posixpath.dirname(path), suffix_of(path)


def _chosen(files: list[storage.InputFile]) -> Iterable[storage.InputFile]:
    """All files; of too many, the first of every folder and suffix and others evenly spaced."""
    if len(files) <= MAX_OPENED:
        return files
    first = {_kind(f.path): f for f in reversed(files)}
    return {f.path: f for f in [*first.values(), *files[:: len(files) // MAX_OPENED]]}.values()


def _by_reader_options(
    form: FileFormat, files: Sequence[storage.InputFile]
) -> dict[tuple[str, str], list[storage.InputFile]]:
    """Files by (format, media type): the options that their reader needs because the suffix does not say it."""
    from curation.sources.text import format_by_suffix, is_html_path

    parts: dict[tuple[str, str], list[storage.InputFile]] = {}
    for file in files:
        read_as = "auto" if form.read == "warc" or format_by_suffix(file.path) == form.form else form.form
        named = form.read == "warc" or (form.form == "text" and is_html_path(file.path))
        parts.setdefault((read_as, "text/html" if form.html and not named else "text/plain"), []).append(file)
    return parts
