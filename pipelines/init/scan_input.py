"""What an input is, found out by looking at the content of its files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from curation import storage
from curation.core.errors import UserError
from pipelines.init.detect_format import Shape, shape_of
from pipelines.init.file_groups import Group, Look
from pipelines.init.globs import patterns, suffix_of
from pipelines.init.sample_documents import judge

LOOKED_AT = 400  # files whose content is looked at; of more, some of every folder and suffix


def look(inputs: Sequence[str], language_model: str = "lid.176") -> Look:
    """Looks at files, folders and URLs. Raises UserError for an input that is absent or holds no text."""
    found = Look([], {}, False)
    for given in inputs:
        _look_at(given, found)
    if not found.groups:
        said = "; ".join(f"{reason}: {', '.join(paths[:3])}" for reason, paths in found.left_out.items())
        raise UserError(
            f"there is no text in {', '.join(inputs)}: {said or 'no files'}\n"
            "  expected WARC, WET, ARC, JSON Lines, Parquet, Arrow, HTML or plain text"
        )
    found.groups.sort(key=lambda g: -g.bytes)
    judge(found, language_model)
    return found


def _look_at(given: str, found: Look) -> None:
    fs, inner = storage.filesystem(given)
    if not fs.exists(inner):
        raise UserError(f"{given}: no such file or folder\n  expected what `gristmill curate` is to read")
    root, only = (given, None) if fs.isdir(inner) else posixpath.split(given)
    root = root or "."
    files = storage.list_inputs(root, only if only is not None else "**/*")
    shown = [f for f in files if only or not any(part.startswith((".", "_")) for part in f.path.split("/"))]
    shapes: dict[str, Shape | str] = {}
    for file in _chosen(shown):
        shapes[file.path] = shape_of(root, file)
    by_kind = {_kind(path): shape for path, shape in shapes.items()}
    members: dict[Shape, list[storage.InputFile]] = {}
    for file in shown:
        shape = shapes.get(file.path) or by_kind[_kind(file.path)]
        if isinstance(shape, str):
            found.left_out.setdefault(shape, []).append(posixpath.join(root, file.path))
        else:
            members.setdefault(shape, []).append(file)
    for shape, held in members.items():
        for told, part in _by_format(shape, held).items():
            matching, cut = patterns([f.path for f in part], [f.path for f in files])
            found.cut += cut
            found.groups.append(Group(shape, root, matching, part, *told))


def _kind(path: str) -> tuple[str, str]:
    return posixpath.dirname(path), suffix_of(path)


def _chosen(files: list[storage.InputFile]) -> Iterable[storage.InputFile]:
    """All files, or the first of every folder and suffix and others evenly spaced."""
    if len(files) <= LOOKED_AT:
        return files
    first = {_kind(f.path): f for f in reversed(files)}
    return {f.path: f for f in [*first.values(), *files[:: len(files) // LOOKED_AT]]}.values()


def _by_format(shape: Shape, files: Sequence[storage.InputFile]) -> dict[tuple[str, str], list[storage.InputFile]]:
    """Files by what their reader has to be told: a format and a media type that the suffix does not say."""
    from curation.sources.text import format_by_suffix, is_html_path

    parts: dict[tuple[str, str], list[storage.InputFile]] = {}
    for file in files:
        told = "auto" if shape.read == "warc" or format_by_suffix(file.path) == shape.form else shape.form
        named = shape.read == "warc" or (shape.form == "text" and is_html_path(file.path))
        parts.setdefault((told, "text/html" if shape.html and not named else "text/plain"), []).append(file)
    return parts
