"""Runs the command line `gristmill`: parses arguments, calls the command, turns errors into messages and exit codes.

Heavy packages are imported inside commands, so that `--help` answers at once. Exit codes: 0 done, 1 failed,
2 wrong usage or configuration, 3 done with something quarantined, 75 stopped by SIGTERM: run the same command again.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from typing import Any, NoReturn

import typer.main

from pipelines.cli.app import app, make_console
from pipelines.cli.help_map import complete_help
from pipelines.cli.terminal_output import guard_streams

# Modules that add commands to the app
COMMAND_MODULES = (
    *("setup", "plan", "curate", "launch", "monitor", "inspect", "what_if", "shards"),
    *("train", "data", "evaluate", "models", "mix", "scaling"),
)
for _name in COMMAND_MODULES:
    importlib.import_module(f"pipelines.cli.commands.{_name}")

_INTERRUPTED = 130  # the exit code that Typer gives for Ctrl-C

# Errors shown as a message without a traceback: (module that defines it, class, exit code). By name, so that --help
# does not import them.
_USER_ERRORS = (
    ("curation.core.errors", "UserError", 2),
    ("curation.core.errors", "DamagedFile", 1),
    ("curation.engine.execution.driver", "RunFailed", 1),
    ("curation.shards", "ShardError", 1),
    ("training.data.mix_table", "OrderError", 1),
    ("training.checkpoint.save_load", "CheckpointError", 1),
    ("training.distributed.watchdog", "Preempted", 75),
)

# Clients of object stores: their errors are shown as they are, with a hint about keys
_OBJECT_STORES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "adlfs", "azure")


def main() -> NoReturn:
    """The entry point: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # an ASCII-only terminal must not fail a run that is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with guard_streams():
        _run()


def _run() -> NoReturn:
    command = typer.main.get_command(app)
    complete_help(command)
    if "_GRISTMILL_COMPLETE" in os.environ:
        from typer import _completion_classes

        _completion_classes.completion_init()
    arguments = _without_plain(sys.argv[1:])
    if arguments == ["--version"]:
        from curation import __version__

        print(f"gristmill {__version__}")
        sys.exit(0)
    try:
        code = command.main(args=arguments, prog_name="gristmill", standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        _start_again(error)
        for module, name, code in _USER_ERRORS:
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(error, kind):
                _fail(str(error), code)
        if isinstance(error, ImportError):
            from curation.core.packages import explain_import_error

            if missing := explain_import_error(error):
                _fail(missing, 2)
        if type(error).__module__.split(".")[0] in _OBJECT_STORES:
            _fail(
                f"the object store cannot be used: {error}\n  keys come from the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY) or from the machine's role; AWS_ENDPOINT_URL names a server other than AWS", 1,
            )  # fmt: skip
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(
                f"no space is left on the disk{f' for {error.filename}' if error.filename else ''}\n"
                "  free space there and run the same command: finished work is kept", 1,
            )  # fmt: skip
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of Click's
            _fail(*_usage_error(error))
        traceback.print_exc()  # while the streams are guarded
        sys.exit(1)
    if code == _INTERRUPTED:
        _fail("interrupted. Finished work is kept; run the same command again to resume.", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _start_again(error: Exception) -> None:
    """Starts this command again with the environment variables of its pipeline's CPU level, if they are what it lacks:
    libraries read them when they are loaded."""
    kind = getattr(sys.modules.get("curation.core.cpu_level"), "NotPinned", None)
    if kind is not None and isinstance(error, kind):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, os.environ | error.variables)


def _without_plain(arguments: list[str]) -> list[str]:
    """The arguments without --plain, which may be anywhere before a bare `--`; it sets GRISTMILL_PLAIN."""
    stop = arguments.index("--") if "--" in arguments else len(arguments)
    if "--plain" in arguments[:stop]:
        os.environ["GRISTMILL_PLAIN"] = "1"
    return [*(a for a in arguments[:stop] if a != "--plain"), *arguments[stop:]]


def _usage_error(error: Any) -> tuple[str, int]:
    """The message for wrong arguments, with the command whose help explains them, and the exit code."""
    path = getattr(getattr(error, "ctx", None), "command_path", "gristmill")
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: print its help
        print(error.format_message())
        sys.exit(2)
    return f"{path}: {error.format_message()}\n  usage: {path} --help", error.exit_code


def _fail(message: str, code: int) -> NoReturn:
    console = make_console(stderr=True)
    console.print("error ", end="", style="bold red")
    console.print(message, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
