"""What the pages of the guide hold for a machine: commands to run, files to write, the marks on both.

    <!-- needs: a cluster -->  the next block cannot run here, and why
    <!-- file: web.yaml -->    the next block is that file, as the commands after it find it

Commands stand in blocks of `bash` (a script) or `console` (after `$`, with what they print; of numbers only that they
are there is compared, and a line of … stands for any).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.M | re.S)
_MARK = re.compile(r"<!-- (needs|file)(?:: (.*?))? -->\s*\Z")
_COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:gristmill|make|python|torchrun|pip|pytest|git) ", re.M)


@dataclass(frozen=True)
class Block:
    """A block of a page. `kind`: the word after the fence. `needs`: why it cannot run here."""

    page: str
    line: int
    kind: str
    text: str
    needs: str = ""
    file: str = ""

    @property
    def runs(self) -> bool:
        return self.kind in ("bash", "console") and not self.needs

    @property
    def unmarked(self) -> bool:
        """Commands in a block that says neither that it is a script nor what it is."""
        return self.kind == "" and bool(_COMMAND.search(self.text))


def pages() -> list[Path]:
    """README, CONTRIBUTING and the guide."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        marks: dict[str, str] = {}
        before = text[: match.start()]
        while mark := _MARK.search(before):
            marks[mark[1]] = mark[2] or ""
            before = before[: mark.start()]
        indent = match[1]
        body = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
        found.append(
            Block(
                str(page.relative_to(ROOT)), text.count("\n", 0, match.start()) + 1, match[2], body,
                marks.get("needs", ""), marks.get("file", ""),
            )
        )  # fmt: skip
    return found


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Commands of a block, each with the lines that the page says it prints."""
    if block.kind == "bash":
        return [(block.text, [])]
    made: list[tuple[str, list[str]]] = []
    more = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            made.append((line[2:], []))
        elif more:
            made[-1] = (f"{made[-1][0]}\n{line}", [])
        else:
            made[-1][1].append(line)
        more = (line.startswith("$ ") or more) and line.endswith("\\")
    return made


def missing(shown: list[str], printed: str) -> list[str]:
    """Lines that the page shows and the command did not print, numbers and spaces aside."""
    there = {_shape(line) for line in printed.splitlines()}
    return [line for line in shown if line.strip() and "…" not in line and _shape(line) not in there]


def _shape(line: str) -> str:
    return " ".join(re.sub(r"[0-9a-f]{32}|\d[\d,.]*", "#", line).split())
