"""The command line: `gristmill`. A command gathers its arguments, calls the part that does the work, shows the answer.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Exit codes: 0 done, 1 failed,
2 wrong usage or configuration, 3 done with something quarantined, 75 stopped by SIGTERM: run it again.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any, NoReturn

import typer.main

from curation.core.packages import explain_import_error
from pipelines.cli.app import app, make_console
from pipelines.cli.help_map import dress

# Modules that add commands to the app, in the order in which help shows them.
COMMANDS = (
    *("init", "curate", "delete", "plan", "inspect", "monitor", "card", "what_if", "shards", "data"),
    *("train", "evaluate", "export", "models", "scaling", "mix", "completion"),
)
for _name in COMMANDS:
    importlib.import_module(f"pipelines.cli.commands.{_name}")

_INTERRUPTED = 130  # what Typer makes of Ctrl-C

# Errors that are a message and no traceback, by the module that raises them: (module, class, exit code)
_SAID = (
    ("curation.step", "UserError", 2),
    ("training.config", "UserError", 2),
    ("curation.engine.execution.driver", "RunFailed", 1),
    ("curation.shards", "ShardError", 1),
    ("training.data.mix_table", "OrderError", 1),
    ("training.checkpoint.save_load", "CheckpointError", 1),
    ("training.distributed.watchdog", "Preempted", 75),
)

# packages of object stores, whose errors speak for themselves
_STORES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "adlfs", "azure")


def main() -> NoReturn:
    """The entry point: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only must not end a run that is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    command = typer.main.get_command(app)
    dress(command)
    if "_GRISTMILL_COMPLETE" in os.environ:
        from typer import _completion_classes

        _completion_classes.completion_init()
    try:
        code = command.main(args=_without_plain(sys.argv[1:]), prog_name="gristmill", standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        for module, name, code in _SAID:
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(error, kind):
                _fail(str(error), code)
        if isinstance(error, ImportError) and (missing := explain_import_error(error)):
            _fail(missing, 2)
        if type(error).__module__.split(".")[0] in _STORES:
            _fail(
                f"the object store cannot be used: {error}\n  keys are taken from the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY) or are the machine's role; another server than AWS is AWS_ENDPOINT_URL", 1,
            )  # fmt: skip
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the arguments do not fit
            _fail(*_usage(error))
        raise
    if code == _INTERRUPTED:
        _fail("interrupted. What is finished stays; the same command goes on from there.", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _without_plain(arguments: list[str]) -> list[str]:
    """The arguments less --plain, which every command takes anywhere before a bare `--`; it is for the consoles."""
    stop = arguments.index("--") if "--" in arguments else len(arguments)
    if "--plain" in arguments[:stop]:
        os.environ["GRISTMILL_PLAIN"] = "1"
    return [*(a for a in arguments[:stop] if a != "--plain"), *arguments[stop:]]


def _usage(error: Any) -> tuple[str, int]:
    """What is wrong with the arguments, of which command, and where it says how they go."""
    path = getattr(getattr(error, "ctx", None), "command_path", "gristmill")
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help is the answer
        print(error.format_message())
        sys.exit(2)
    return f"{path}: {error.format_message()}\n  {path} --help  shows how it goes", error.exit_code


def _fail(message: str, code: int) -> NoReturn:
    console = make_console(stderr=True)
    console.print("[bold red]error[/] ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
