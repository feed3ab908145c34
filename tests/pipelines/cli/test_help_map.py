"""The command line as a newcomer meets it: the map, examples that parse, errors that help, completion, plain mode."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from curation.core.renamed_keys import COMMANDS
from pipelines.cli.app import app
from pipelines.cli.help_map import EXAMPLES, HELP_MAP
from pipelines.cli.main import complete_help

ROOT = Path(__file__).resolve().parents[3]
# What these print is a path, text or a picture that moves; scripts read the files that they write.
WITHOUT_JSON = {
    "demo", "report", "card", "completion", "watch", "compare", "train", "generate", "export", "import",
    "shards inspect", "shards merge", "shards export", "shards import",
    "models pull", "models binary", "models train ngram",
    "models train classifier", "models train ensemble", "models train language-stats",
    "checkpoint verify", "scaling ladder",
}  # fmt: skip


def commands(command: Any, path: str = "") -> dict[str, Any]:
    """Every command that does something, by its words."""
    below = getattr(command, "commands", {})
    if not below:
        return {path: command}
    return {k: v for name, c in below.items() for k, v in commands(c, f"{path} {name}".strip()).items()}


@pytest.fixture(scope="module")
def root() -> Any:
    command = typer.main.get_command(app)
    complete_help(command)
    return command


def test_the_map_fits_a_screen(gristmill):
    code, out, _ = gristmill("--help")
    lines = out.rstrip("\n").split("\n")
    assert code == 0 and len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith("...") for line in lines)


def test_defaults_are_shown(gristmill):
    """Square brackets in a help text are markup, and would vanish."""
    for command, default in (("curate", "runs/NAME"), ("report", "RUN/report.html"), ("mix search", "DATA/mix/FILE")):
        assert f"[default: ({default})]" in " ".join(gristmill(*command.split(), "--help")[1].split()), command


def test_every_command_is_on_the_map(root):
    known = {name for group in HELP_MAP.values() for name in group}
    assert set(root.commands) <= known


def test_every_command_ends_with_examples_that_parse(root):
    for path, command in commands(root).items():
        assert path in EXAMPLES, f"pipelines/cli/help_map.py has no example of {path!r}"
        for example in EXAMPLES[path]:
            words = shlex.split(example.partition(">>")[0])
            assert words[: len(path.split())] == path.split()
            command.make_context(path, words[len(path.split()) :]).close()
        assert command.help and command.epilog.rstrip().endswith(EXAMPLES[path][-1])


def test_what_scripts_read_has_json(root):
    without = {p for p, c in commands(root).items() if not any("--json" in o.opts for o in c.params)}
    assert without <= WITHOUT_JSON


def test_help_of_a_command_ends_with_its_examples(gristmill):
    code, out, _ = gristmill("curate", "--help")
    assert code == 0 and "--set" in out
    assert out.rstrip().splitlines()[-1].strip() == "gristmill " + EXAMPLES["curate"][-1]


def test_help_of_every_command_is_readable_in_80_columns(root):
    """Two columns without boxes; a description has at least half of the line, a value a name and not a Python type."""
    for path, command in commands(root).items():
        context = command.make_context(path, [], resilient_parsing=True, terminal_width=80)
        help_text = command.get_help(context).partition("Examples:")[0]
        assert max(map(len, help_text.splitlines())) <= 80, path
        assert not re.search(r"<\w+|list\[|\[/?(?:bold|dim)\]|╭", help_text), f"{path}: {help_text}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("curate",),
            "error gristmill curate: Missing argument 'FILE'.\n  usage: gristmill curate --help\n",
        ),
        (("nonsense",), "No such command 'nonsense'"),
        (("curate", "x.yaml", "--wrong"), "No such option: --wrong"),
        (("models", "pull"), "error gristmill models pull: Missing argument"),
    ],
)
def test_wrong_use_is_said_in_two_lines(gristmill, arguments, said):
    code, out, err = gristmill(*arguments)
    assert (code, out) == (2, "") and said in err
    assert len(err.splitlines()) == 2 and "--help" in err.splitlines()[1]


@pytest.mark.parametrize(
    "path", sorted(p for p in EXAMPLES if p.split()[0] in ("status", "explain", "report", "card", "plan", "curate"))
)
def test_a_name_that_is_not_there_says_what_and_what_to_do(gristmill, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    more = ("x",) if path == "explain" else ()
    code, out, err = gristmill(*path.split(), "nowhere.yaml" if path in ("plan", "curate") else "nowhere", *more)
    assert (code, out) == (2, "")
    assert err.startswith("error nowhere") and "Traceback" not in err
    assert len(err) > 40 and not list(tmp_path.iterdir())


def test_ctrl_c_says_what_stays(gristmill, small_run, monkeypatch):
    def interrupted(run_dir: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("curation.engine.runtime.status.run_status", interrupted)
    code, _, err = gristmill("status", small_run)
    assert code == 1 and err == "error interrupted. Finished work is kept; run the same command again to resume.\n"


def test_plain_has_no_colour_and_no_live_display(gristmill, small_run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, coloured, _ = gristmill("status", small_run)
    monkeypatch.delenv("GRISTMILL_PLAIN", raising=False)
    code, out, _ = gristmill("status", small_run, "--plain")
    monkeypatch.delenv("GRISTMILL_PLAIN", raising=False)
    assert code == 0 and "\x1b" in coloured and "\x1b" not in out
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(gristmill, shell):
    code, out, _ = gristmill("completion", shell)
    assert code == 0 and "_GRISTMILL_COMPLETE" in out and "gristmill" in out


def test_completion_knows_commands_and_options():
    def ask(words: str) -> list[str]:
        told = {"_GRISTMILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        ran = subprocess.run(
            [sys.executable, "-m", "pipelines.cli"],
            env={**os.environ, **told},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        return ran.stdout.split()

    assert ask("gristmill cura") == ["curate"]
    assert ask("gristmill curate --sam") == ["--sample"]
    assert ask("gristmill shards ver") == ["verify"]


def test_completion_of_another_shell_is_refused(gristmill):
    code, _, err = gristmill("completion", "tcsh")
    assert code == 2 and "bash, zsh, fish" in err


@pytest.mark.parametrize("old", COMMANDS)
def test_an_old_command_is_refused_with_its_new_name(gristmill, root, old):
    code, out, err = gristmill(old, "runs/web")
    assert (code, out) == (2, "") and f"the command {old} was renamed to {COMMANDS[old]}" in err
    new = COMMANDS[old].partition(" (")[0]
    assert new in commands(root) and old not in commands(root)


def test_version(gristmill):
    from curation import __version__

    assert gristmill("--version") == (0, f"gristmill {__version__}\n", "")
