"""Defines what `gristmill --help` shows: the commands grouped by purpose, and examples for each command.

Both are kept in one place so that they can be read through as a newcomer reads them. A test parses every example and
checks that every command has one.
"""

from __future__ import annotations

from typing import Any

import typer.core

# Purpose -> command -> what it does, in a few words. A command that is missing here is listed under "Other".
HELP_MAP: dict[str, dict[str, str]] = {
    "Curate": {
        "demo": "the whole pipeline on text of this machine; 4 minutes",
        "init": "write a pipeline file for your data",
        "plan": "what a pipeline or training file will do and cost",
        "curate": "text to token shards; resumes where it stopped",
        "launch": "files that run a pipeline on Slurm, KubeRay, AWS",
        "models": "list, download and train model files for steps",
    },
    "Inspect": {
        "status": "state of a curation run",
        "watch": "follow a curation or training run live",
        "report": "HTML report of a run",
        "profile": "where a run's CPU time went",
        "compare": "runs side by side",
        "card": "data card and Croissant metadata of a run",
        "explain": "what happened to a document, and why",
        "shards": "verify, inspect, count, merge, export, import",
        "doctor": "check this machine",
    },
    "Change": {
        "what-if": "what other rules would keep, without a new run",
        "delete": "delete documents from a finished run",
        "gc": "remove cached files that the result does not need",
    },
    "Train": {
        "train": "train a model on shards; resumes where it stopped",
        "checkpoint": "list and verify checkpoints",
        "evaluate": "perplexity by domain, benchmark tasks",
        "generate": "generate text",
        "export": "to Hugging Face format",
        "import": "from Hugging Face format",
        "data": "what a training step read; trace a token",
    },
    "Experiment": {
        "mix": "find the best mix of domains, with error bars",
        "scaling": "scaling laws: fit, predict, backtest",
    },
    "Shell": {"completion": "Tab completion for bash, zsh, fish"},
}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "launch": (
        "launch slurm web.yaml --run /shared/runs/web --nodes 8",
        "launch kuberay cc.yaml --run s3://bucket/runs/cc --image registry/gristmill:1",
    ),
    "demo": ("demo", "demo --dir /tmp/demo --executor inline"),
    "init": ("init crawl/", "init dump.jsonl books/ -o web.yaml"),
    "plan": ("plan web.yaml", "plan train.yaml --data runs/web --gpus 8 --device h100 --price 2.5"),
    "curate": (
        "curate web.yaml",
        "curate web.yaml --limit 1000 --run runs/first-look",
        "curate web.yaml --run runs/de --set steps.language.keep.language=\"language.code = 'de'\"",
        "curate web.yaml --run s3://bucket/runs/web --address auto",
    ),
    "models list": ("models list", "models list --json"),
    "models pull": ("models pull lid.176",),
    "models binary": ("models binary reference.arpa --out reference.bin",),
    "models train ngram": ("models train ngram wiki.txt --order 3 --out reference.bin",),
    "models train classifier": ("models train classifier hq=good/*.jsonl crawl=sample/*.parquet --out hq.bin",),
    "models train language-stats": ("models train language-stats gazette.jsonl --language gsw --out languages.json",),
    "models train ensemble": (
        "models train ensemble good=runs/reference crawl=runs/sample --label good --signal classifier.hq --out q.json",
    ),
    "gc": ("gc runs/web --dry-run", "gc runs/web"),
    "status": ("status runs/web", "status runs/web --json"),
    "watch": ("watch runs/web", "watch runs/web/train/small --once"),
    "report": ("report runs/web", "report runs/web --out web.html --price 0.04"),
    "profile": ("profile runs/web", "profile runs/web --json"),
    "compare": ("compare runs/web runs/de", "compare runs/web runs/de --out compare.html"),
    "card": ("card runs/web", "card pipelines/recipes/fineweb.yaml --out data_cards", "card lid.176"),
    "explain": (
        "explain runs/web https://example.com/page",
        "explain runs/web 9f86d081884c7d659a2feaa0c55ad015 --json",
    ),
    "shards verify": ("shards verify runs/web",),
    "shards inspect": (
        "shards inspect runs/web",
        "shards inspect runs/web --shard train/web/00000.arrow --documents 1",
    ),
    "shards stats": ("shards stats runs/web --json",),
    "shards merge": ("shards merge runs/web runs/books --out runs/both",),
    "shards export": ("shards export runs/web --to megatron --out exported",),
    "shards import": ("shards import train.bin --from nanogpt --tokenizer gpt2.json --out runs/imported",),
    "doctor": ("doctor", "doctor --storage s3://bucket/runs"),
    "what-if": ('what-if runs/web --set language="language.score >= 0.5"',),
    "delete": ("delete runs/web --url https://example.com/page --reason 'takedown request'",),
    "train": (
        "train small.yaml --data runs/web",
        "train small.yaml --data runs/web --set optimizer.lr=3e-4 --run runs/web/train/low",
        "train small.yaml --data runs/web --workers 4-8 --address auto",
    ),
    "checkpoint list": ("checkpoint list runs/web/train/small",),
    "checkpoint verify": ("checkpoint verify runs/web/train/small",),
    "evaluate": ("evaluate runs/web/train/small arc.jsonl gsm8k.jsonl --data runs/web",),
    "generate": ("generate runs/web/train/small 'Once upon'", "generate runs/web/train/small 'The' --temperature 0"),
    "export": ("export runs/web/train/small hf-model",),
    "import": ("import hf-model runs/imported",),
    "data verify-order": ("data verify-order runs/web/train/small",),
    "data inspect-step": ("data inspect-step runs/web/train/small --step 100",),
    "data trace-token": (
        "data trace-token runs/web/train/small --step 100",
        "data trace-token runs/web --shard train/web/00000.arrow --token 1000",
    ),
    "data find-document": ("data find-document runs/web/train/small 9f86d081884c7d659a2feaa0c55ad015",),
    "mix search": ("mix search mix.yaml",),
    "mix fit": ("mix fit ratios.csv metrics.csv --out mixed",),
    "scaling fit": ("scaling fit runs.csv",),
    "scaling predict": ("scaling predict runs.csv --flop 1e21",),
    "scaling backtest": ("scaling backtest runs.csv",),
    "scaling ladder": ("scaling ladder ladder.yaml --data runs/web --out runs/web/ladder",),
    "scaling watch": ("scaling watch runs/web/train/large --ladder runs/web/ladder --every 60",),
    "completion": ("completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc"),
}

_COMMAND_COLUMN, _TEXT_COLUMN = 12, 24


class HelpMap(typer.core.TyperGroup):
    """The root command group: its help is the map, and an old command's name is refused with its new one."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        rows = [f"{ctx.info_name}: crawled text in, a trained language model out", ""]
        mapped = {name for commands in HELP_MAP.values() for name in commands}
        others = {n: str(c.get_short_help_str(56)) for n, c in self.commands.items() if n not in mapped}
        for purpose, commands in {**HELP_MAP, "Other": others}.items():
            existing = {n: text for n, text in commands.items() if n in self.commands}
            for i, (name, text) in enumerate(existing.items()):
                heading = purpose if i == 0 else ""
                rows.append(f"{heading:<{_COMMAND_COLUMN}}{name:<{_TEXT_COLUMN - _COMMAND_COLUMN}}{text}")
        rows += [
            "",
            f"{ctx.info_name} COMMAND --help  shows options and examples",
            "--plain    anywhere: no colour, no live display",
            "--version  print the version",
        ]
        formatter.write("\n".join(rows) + "\n")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            from curation.core.renamed_keys import COMMANDS

            if args[0] in COMMANDS:
                ctx.fail(f"the command {args[0]} was renamed to {COMMANDS[args[0]]}")
        return super().resolve_command(ctx, args)


def complete_help(command: Any, path: str = "") -> None:
    """Adds the examples to the help of every command below a group, and short names for the values of its options."""
    if examples := EXAMPLES.get(path):
        # \b keeps the lines as they are: click would wrap them into one paragraph
        command.epilog = "\n".join(["\b", "Examples:", *(f"  gristmill {e}" for e in examples)])
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None  # FILE, not FILE <str>
        elif not parameter.is_flag and parameter.metavar is None:
            annotation = parameter.type_descriptor.annotation
            parameter.metavar = {int: "N", float: "X"}.get(annotation) or parameter.name.upper()
    for name, child in getattr(command, "commands", {}).items():
        complete_help(child, f"{path} {name}".strip())
