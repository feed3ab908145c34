"""`python -m pipelines.cli`: the command line, for launchers that take a module (torchrun)."""

from pipelines.cli.main import main

main()
