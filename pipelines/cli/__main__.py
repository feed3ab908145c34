"""Runs the command line as `python -m pipelines.cli`, for launchers that take a module (torchrun)."""

from pipelines.cli.main import main

main()
