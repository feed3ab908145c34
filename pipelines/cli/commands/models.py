"""Commands on model files: list, pull, and train one."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from pipelines.cli.app import AsJson, make_console, models_app, train_model_app


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """The catalogue: what each model is, its licence, and whether it is on this machine."""
    from curation.models import listing
    from pipelines.cli.text_output import show_models

    rows = listing()
    if as_json:
        print(json.dumps([r.__dict__ for r in rows]))
    else:
        show_models(make_console(), rows)


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A name of the catalogue, or a URL.")]) -> None:
    """Bring a model to this machine, checked against its checksum."""
    from curation.models import pull

    print(pull(name))


@models_app.command("binary")
def models_binary(
    arpa: Annotated[str, typer.Argument(metavar="ARPA", help="An n-gram model as ARPA file.")],
    out: Annotated[str, typer.Option(help="The KenLM binary to write.")],
) -> None:
    """Turn an ARPA file into KenLM's binary, which all processes of a machine share."""
    from curation.models import resolve
    from curation.quality.perplexity.kenlm_binary import convert_to_binary

    convert_to_binary(resolve(arpa), out)
    print(out)


@train_model_app.command("ngram")
def models_train_ngram(
    text: Annotated[list[str], typer.Argument(help="Text, JSONL or Parquet files, folders or globs.")],
    out: Annotated[str, typer.Option(help="The model to write: X.arpa, or KenLM's binary.")],
    order: Annotated[int, typer.Option(min=2, max=6, help="Length of the longest n-gram.")] = 5,
    field: Annotated[str, typer.Option(help="The text's name in JSONL and Parquet.")] = "text",
    prune: Annotated[
        list[int] | None, typer.Option(help="Drop n-grams seen no more than this, by order. Repeats.")
    ] = None,
    memory: Annotated[int, typer.Option(min=16, help="MB held in memory; more goes to disk.")] = 64,
    workers: Annotated[int | None, typer.Option(min=1, help="Cores to use; all of them unless said.")] = None,
) -> None:
    """An n-gram model for the perplexity step: interpolated modified Kneser-Ney.

    X.arpa is the text form that every tool reads; any other name is KenLM's binary, which processes share. For that
    KenLM's build_binary is taken from PATH, or compiled once from PyPI (half a minute, a C++ compiler).
    """
    from curation.quality.ngram.estimate import train_ngram

    cores = workers or len(os.sched_getaffinity(0))
    made = train_ngram(text, order, out, field=field, prune=prune, memory=memory << 20, workers=cores)
    print(f"{out}: {', '.join(f'{n:,}' for n in made.ngrams)} n-grams of order 1 to {order}")


@train_model_app.command("classifier")
def models_train_classifier(
    samples: Annotated[list[str], typer.Argument(metavar="LABEL=PATH...", help="Label and files, folder or glob.")],
    out: Annotated[str, typer.Option(help="The fastText model to write.")],
    field: Annotated[str, typer.Option(help="The text's name in JSONL and Parquet.")] = "text",
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    quantise: Annotated[bool, typer.Option(help="Ten times smaller, for a point of accuracy or so.")] = False,
) -> None:
    """A fastText classifier for the classifier step, with its figures on a tenth held out."""
    from curation.quality.classifier.train import train_classifier

    made = train_classifier(_by_label(samples), out, field=field, epochs=epochs, quantise=quantise)
    print(f"{out}: accuracy {made.accuracy:.3f} on held-out samples")
    for row in made.labels:
        print(f"  {row.label}: {row.trained:,} samples, AUC {row.metrics.auc:.3f}, ECE {row.metrics.ece:.3f}")
    print(f"card: {made.card}")


@train_model_app.command("ensemble")
def models_train_ensemble(
    samples: Annotated[list[str], typer.Argument(metavar="LABEL=PATH...", help="Label and runs, or Parquet files.")],
    label: Annotated[str, typer.Option(help="The label whose probability the score is.")],
    signal: Annotated[list[str], typer.Option(help="A signal to combine, such as perplexity.value. Repeats.")],
    out: Annotated[str, typer.Option(help="The model to write (JSON).")],
) -> None:
    """One calibrated score out of several signals, for the ensemble step, with its figures on a tenth held out.

    The samples are documents with signals: finished runs over text of each label, with the same steps and no rules.
    """
    from curation.quality.ensemble.train import train_ensemble

    made = train_ensemble(_by_label(samples), signal, out, label=label)
    print(f"{out}: AUC {made.metrics.auc:.3f}, ECE {made.metrics.ece:.3f} on {made.metrics.samples:,} held-out samples")
    for name, area in made.alone:
        print(f"  {name} alone: AUC {area:.3f}")
    print(f"card: {made.card}")


def _by_label(samples: list[str]) -> dict[str, list[str]]:
    sources: dict[str, list[str]] = {}
    for sample in samples:
        label, equals, path = sample.partition("=")
        if not equals:
            raise typer.BadParameter(f"{sample!r}: expected LABEL=PATH, such as good=reference/*.jsonl")
        sources.setdefault(label, []).append(path)
    return sources
