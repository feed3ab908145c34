"""What reaches the terminal: no foreign control sequence, on any way out, and rich's own where there is a terminal.

Covers: safe_console.py
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pipelines.cli.safe_console import SafeConsole
from pipelines.cli.terminal_output import SafeStream, clean

EVIL = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\", "\x1b[2J\x1b[H",
    "\x9b31mred", "\x9d0;title\x9c", "\x1bP+q544e\x1b\\", "\x1b[6n", "\x1bc", "a\rb", "a\x08\x08b", "\x07", "\x0e",
    "\u202etxt.exe", "\x1b]52;c;cm0gLXJm\x07", "\x1b", "\x1b[", "\x1b]never ends", "\x1b(0", "\x7f",
)  # fmt: skip
OWN = re.compile(r"\x1b\[[0-9;?]*[mKAhl]|\r")  # what rich writes: styles, cursor lines, erasing, hiding the cursor


def foreign(output: str) -> set[str]:
    """The control characters in an output, without rich's own sequences."""
    return set(re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", OWN.sub("", output)))


@pytest.mark.parametrize("evil", EVIL)
def test_a_sequence_is_cut_as_a_whole(evil: str) -> None:
    assert foreign(clean(f"before {evil} after")) == set()
    assert clean(f"before {evil}").startswith("before ") and not re.search(r"\[31m|0;title|\]8;|544e", clean(evil))
    assert clean("Mühle\tاللغة\n粉 👩‍🌾") == "Mühle\tاللغة\n粉 👩‍🌾"


@given(st.text())
def test_nothing_is_left_and_twice_is_once(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", clean(text)) and clean(clean(text)) == clean(text)


@pytest.mark.parametrize("evil", EVIL)
def test_every_way_through_rich(evil: str) -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, width=100)
    console.print(evil, Text(evil), style="bold")
    table = Table(evil, title=evil)
    table.add_row(evil, style="red")
    table.add_row(Text(evil, style="bold"))
    console.print(table)
    with Live(Text(evil), console=console, auto_refresh=False) as live:
        live.update(table, refresh=True)
        print(evil)  # rich shows what is printed meanwhile
    with Progress(TextColumn("{task.description}"), console=console) as progress:
        progress.add_task(evil, total=1)
    with console.capture() as capture:
        console.print(evil)
    console.rule(evil)
    assert foreign(out.getvalue() + capture.get()) == set()
    assert "\x1b[1m" in out.getvalue()  # bold, our own


def test_markup_in_foreign_text_is_text() -> None:
    out = io.StringIO()
    SafeConsole(file=out, width=100).print("[/] [bold]rule[/bold] [link=file:///etc]x[/link] :smile:")
    assert out.getvalue().strip() == "[/] [bold]rule[/bold] [link=file:///etc]x[/link] :smile:"


def test_streams_are_cleaned_and_errors_masked() -> None:
    out = io.StringIO()
    print("\x1b[31mdata ghp_" + "a" * 36, file=SafeStream(out, masks=False))
    print("\x1b[31mfailed: s3://me:hunter2@host/x", file=SafeStream(out, masks=True))
    assert out.getvalue() == "data ghp_" + "a" * 36 + "\nfailed: s3://***@host/x\n"


PIPELINE = """
name: evil
sources: [{name: web, read: text, path: "*.jsonl"}]
steps:
  - exact_dedup: {}
  - c4_line_filter: {}
    keep: {"r\\e[31mule\\e]0;title\\a [/]": "c4_line_filter.name_that_is_not_there > 0"}
"""


def in_a_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Runs the command line with a pseudo-terminal for its output; (exit code, all that the terminal received)."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONPATH": os.getcwd()}
    environment.pop("GRISTMILL_PLAIN", None)
    process = subprocess.Popen(command, cwd=cwd, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    received = bytearray()
    while True:
        try:
            data = os.read(parent, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        received += data
    os.close(parent)
    return process.wait(), received.decode(errors="replace").replace("\r\n", "\n")


def test_an_error_in_a_real_terminal(tmp_path: Path) -> None:
    code, said = in_a_terminal("status", "\x1b[31mno\x1b]0;where\x07", cwd=tmp_path)
    assert code == 2 and "no is not a run directory" in said and foreign(said) == set()


@pytest.mark.slow  # thirteen commands
def test_crawled_text_and_rule_names_in_a_real_terminal(tmp_path: Path) -> None:
    url = "http://x.test/\x1b]0;owned\x07\x1b[2J"
    texts = [f"A line of the page {i} that ends properly, as lines of text do.\n" * 4 + EVIL[i % 20] for i in range(6)]
    rows = [{"text": t, "url": f"{url}{i}"} for i, t in enumerate([*texts, texts[0]])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "e.yaml").write_text(PIPELINE)
    code, said = in_a_terminal("curate", "e.yaml", "--executor", "inline", cwd=tmp_path)
    assert code == 2 and "name_that_is_not_there" in said and "rule" in said and foreign(said) == set()
    (tmp_path / "e.yaml").write_text(PIPELINE.replace("c4_line_filter.name_that_is_not_there > 0", "length(text) > 0"))
    code, said = in_a_terminal("curate", "e.yaml", "--executor", "inline", cwd=tmp_path)
    assert code == 0 and foreign(said) == set() and "\x1b[" in said
    for command in (
        ("explain", "runs/evil", f"{url}0"), ("explain", "runs/evil", f"{url}6"), ("explain", "runs/evil", "\x1b[31mx"),
        ("watch", "runs/evil"), ("status", "runs/evil"), ("plan", "e.yaml"),
        ("what-if", "runs/evil", "--set", "\x1b[5mx=y"),
        ("status", "\x1b[31mnowhere"), ("\x1b]0;x\x07",), ("shards", "inspect", "runs/evil"),
    ):  # fmt: skip
        code, said = in_a_terminal(*command, cwd=tmp_path)
        assert said.strip() and foreign(said) == set(), command
    code, said = in_a_terminal("curate", "--help", cwd=tmp_path)
    assert code == 0 and foreign(said) == set() and "--run DIR" in said
