"""The command line: `gristmill`. A command gathers its arguments, calls the part that does the work, shows the answer.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Exit codes: 0 done, 1 failed,
2 wrong usage or configuration, 3 done with something quarantined, 75 stopped by SIGTERM: run it again.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import NoReturn

from pipelines.app import app

# Modules that add commands to the app, in the order in which help shows them.
COMMANDS = (
    *("init", "curating", "forget", "account", "looking", "card", "what_if", "shards", "order"),
    *("training", "evaluate", "export", "models", "scaling", "mix"),
)
for _name in COMMANDS:
    importlib.import_module(f"pipelines.commands.{_name}")

# Errors that are a message and no traceback, by the module that raises them: (module, class, exit code)
_SAID = (
    ("curation.step", "UserError", 2),
    ("training.config", "UserError", 2),
    ("curation.engine.driver", "RunFailed", 1),
    ("curation.shards", "ShardError", 1),
    ("training.mix", "OrderError", 1),
    ("training.checkpoint", "CheckpointError", 1),
    ("training.watch", "Preempted", 75),
)


def main() -> NoReturn:
    """The entry point: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only must not end a run that is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="gristmill")
    except KeyboardInterrupt:
        _fail("interrupted. What is finished stays; the same command goes on from there.", 1)
    except Exception as error:
        for module, name, code in _SAID:
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(error, kind):
                _fail(str(error), code)
        raise
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    console.print("[bold red]error[/] ", end="")
    console.print(message, markup=False, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
