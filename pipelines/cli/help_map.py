"""What `gristmill --help` shows: a map of the commands by what one wants to do, and for each some examples.

Both stand here, in one place, so that they can be read through as a newcomer reads them. A test parses every example
and asks that no command is without one.
"""

from __future__ import annotations

from typing import Any

import typer.core

# What one wants -> command -> what it does, in few words. A command that is not here is listed last.
MAP: dict[str, dict[str, str]] = {
    "Make": {
        "demo": "all of it, on text that this machine has; two minutes",
        "init": "a pipeline file for your data, after a look at it",
        "plan": "what a pipeline or training file would do, and cost",
        "curate": "text to shards of tokens; again: only what is missing",
        "models": "model files for the steps: list, pull, train one",
    },
    "Look": {
        "status": "where a run stands",
        "watch": "a run or a training while it works",
        "report": "one HTML file about a run",
        "compare": "runs side by side",
        "card": "data card and Croissant of a run",
        "explain": "where a page went, and why",
        "shards": "verify, inspect, count, merge, export, import",
        "doctor": "is this machine fit for it",
    },
    "Change": {
        "what-if": "what other rules would keep, before you change them",
        "forget": "take documents out of a finished run",
    },
    "Train": {
        "train": "a model on a run's shards; again: goes on",
        "checkpoint": "what a training has saved, is it whole",
        "evaluate": "perplexity by domain, tasks",
        "generate": "let the model write",
        "export": "to Hugging Face's format",
        "import": "from Hugging Face's format",
        "order": "what a step read",
        "trace": "from a token back to the crawl",
        "seen": "when a training read a document",
    },
    "Experiment": {
        "mix": "which share of each domain is best, and how sure",
        "scaling": "laws of loss over size and data: fit, predict, test",
    },
    "Shell": {"completion": "Tab for bash, zsh, fish"},
}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "demo --dir /tmp/demo --executor inline"),
    "init": ("init crawl/", "init dump.jsonl books/ -o web.yaml"),
    "plan": ("plan web.yaml", "plan train.yaml --data runs/web --gpus 8 --device h100 --price 2.5"),
    "curate": (
        "curate web.yaml",
        "curate web.yaml --limit 1000 --run runs/look",
        "curate web.yaml --run runs/de --set steps.language.keep.language=\"language.code = 'de'\"",
        "curate web.yaml --run s3://bucket/runs/web --address auto",
    ),
    "models list": ("models list", "models list --json"),
    "models pull": ("models pull lid.176",),
    "models binary": ("models binary reference.arpa --out reference.bin",),
    "models train ngram": ("models train ngram wiki.txt --order 3 --out reference.bin",),
    "models train classifier": ("models train classifier hq=good/*.jsonl crawl=sample/*.parquet --out hq.bin",),
    "models train ensemble": (
        "models train ensemble good=runs/reference crawl=runs/sample --label good --signal classifier.hq --out q.json",
    ),
    "status": ("status runs/web", "status runs/web --json"),
    "watch": ("watch runs/web",),
    "report": ("report runs/web", "report runs/web --out web.html"),
    "compare": ("compare runs/web runs/de",),
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
    "forget": ("forget runs/web --url https://example.com/page --reason 'asked to'",),
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
    "order": ("order runs/web/train/small --step 100", "order runs/web/train/small --verify"),
    "trace": ("trace runs/web/train/small --step 100", "trace runs/web --shard train/web/00000.arrow --token 1000"),
    "seen": ("seen runs/web/train/small 9f86d081884c7d659a2feaa0c55ad015",),
    "mix search": ("mix search mix.yaml",),
    "mix fit": ("mix fit ratios.csv metrics.csv --out mixed",),
    "scaling fit": ("scaling fit runs.csv",),
    "scaling predict": ("scaling predict runs.csv --flop 1e21",),
    "scaling backtest": ("scaling backtest runs.csv",),
    "scaling ladder": ("scaling ladder ladder.yaml --data runs/web --out runs/web/ladder",),
    "scaling watch": ("scaling watch runs/web/train/large --ladder runs/web/ladder --every 60",),
    "completion": ("completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc"),
}

_COMMAND, _TEXT = 12, 24  # columns where a row's command and its text begin


class Map(typer.core.TyperGroup):
    """The root group; its help is the map."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        rows = [f"{ctx.info_name}: crawled text in, a trained language model out", ""]
        known = {name for commands in MAP.values() for name in commands}
        others = {n: str(c.get_short_help_str(56)) for n, c in self.commands.items() if n not in known}
        for want, commands in {**MAP, "Besides": others}.items():
            there = {n: text for n, text in commands.items() if n in self.commands}
            for i, (name, text) in enumerate(there.items()):
                rows.append(f"{want if i == 0 else '':<{_COMMAND}}{name:<{_TEXT - _COMMAND}}{text}")
        rows += [
            "",
            f"{ctx.info_name} COMMAND --help  ends with examples",
            "--plain  anywhere: no colour, nothing that moves",
        ]
        formatter.write("\n".join(rows) + "\n")


def dress(command: Any, path: str = "") -> None:
    """Gives every command below a group its examples."""
    from rich.markup import escape

    if examples := EXAMPLES.get(path):
        # two newlines: rich puts what stands between single ones into one paragraph
        command.epilog = "\n\n".join(["[bold]Examples[/]", *(escape(f"  $ gristmill {e}") for e in examples)])
    for name, below in getattr(command, "commands", {}).items():
        dress(below, f"{path} {name}".strip())
