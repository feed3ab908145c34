"""Commands on model files: models list, pull, binary, train ngram, train classifier, train ensemble,
train language-stats."""

from __future__ import annotations

import json
import os
from typing import Annotated, Literal

import typer

from pipelines.cli.app import AsJson, add_group, make_console

models_app = add_group("models", "List, download and train the model files that steps use.")
train_app = add_group("train", "Train a model for a curation step.", parent=models_app)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the model catalogue: what each model is, its licence, whether it is on this machine."""
    from curation.models import listing
    from pipelines.cli.text_output import show_models

    rows = listing()
    if as_json:
        print(json.dumps([r.__dict__ for r in rows]))
    else:
        show_models(make_console(), rows)


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A model name from the catalogue, or a URL.")],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Checksum of the file at a URL; required for http:// and ftp://.")
    ] = None,
) -> None:
    """Download a model and verify its checksum."""
    from curation.models import pull

    print(pull(name, sha256))


@models_app.command("binary")
def models_binary(
    arpa: Annotated[str, typer.Argument(metavar="ARPA", help="An n-gram model in ARPA format.")],
    out: Annotated[str, typer.Option(help="KenLM binary file to write.")],
) -> None:
    """Convert an ARPA file to a KenLM binary, which all processes of a machine share in memory."""
    from curation.models import resolve
    from curation.quality.perplexity.kenlm_binary import convert_to_binary

    convert_to_binary(resolve(arpa), out)
    print(out)


@train_app.command("ngram")
def models_train_ngram(
    text: Annotated[list[str], typer.Argument(help="Text, JSONL or Parquet files, folders or globs.")],
    out: Annotated[str, typer.Option(help="Model file to write: X.arpa, or any other name for a KenLM binary.")],
    order: Annotated[int, typer.Option(min=2, max=6, help="Order of the model: the longest n-gram.")] = 5,
    form: Annotated[
        Literal["words", "spaces"],
        typer.Option(
            help="How text is split. words: lower case, digits as 0, each mark and each letter of a script without "
            "spaces by itself. spaces: as it is, at white space, as KenLM's lmplz does. Stored beside the model."
        ),
    ] = "words",
    field: Annotated[str, typer.Option(help="Name of the text field in JSONL and Parquet.")] = "text",
    prune: Annotated[
        list[int] | None,
        typer.Option(help="Drop n-grams that occur no more often than this; one value per order. Repeatable."),
    ] = None,
    memory: Annotated[int, typer.Option(min=16, help="Memory in MB; counts beyond it go to disk.")] = 64,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes.", show_default="all cores")] = None,
) -> None:
    """Train an n-gram model for the perplexity step (interpolated modified Kneser-Ney).

    X.arpa is the text format that every tool reads; any other name is written as a KenLM binary, which processes share.
    That needs KenLM's build_binary: from PATH, or compiled once from PyPI (half a minute, needs a C++ compiler).
    """
    from curation.quality.ngram.estimate import train_ngram

    cores = workers or len(os.sched_getaffinity(0))
    made = train_ngram(text, order, out, form=form, field=field, prune=prune, memory=memory << 20, workers=cores)
    print(f"{out}: {', '.join(f'{n:,}' for n in made.ngrams)} n-grams of order 1 to {order}")


@train_app.command("classifier")
def models_train_classifier(
    samples: Annotated[
        list[str], typer.Argument(metavar="LABEL=PATH...", help="A label and its files, folder or glob.")
    ],
    out: Annotated[str, typer.Option(help="fastText model file to write.")],
    field: Annotated[str, typer.Option(help="Name of the text field in JSONL and Parquet.")] = "text",
    epochs: Annotated[int, typer.Option(min=1, help="Training epochs.")] = 5,
    quantise: Annotated[
        bool, typer.Option(help="Quantize: about ten times smaller, about one point less accurate.")
    ] = False,
) -> None:
    """Train a fastText classifier for the classifier step; evaluated on a held-out tenth."""
    from curation.quality.classifier.train import train_classifier

    made = train_classifier(_by_label(samples), out, field=field, epochs=epochs, quantise=quantise)
    print(f"{out}: accuracy {made.accuracy:.3f} on held-out samples")
    for row in made.labels:
        print(f"  {row.label}: {row.trained:,} samples, AUC {row.metrics.auc:.3f}, ECE {row.metrics.ece:.3f}")
    print(f"card: {made.card}")


@train_app.command("ensemble")
def models_train_ensemble(
    samples: Annotated[
        list[str], typer.Argument(metavar="LABEL=PATH...", help="A label and its runs or Parquet files.")
    ],
    label: Annotated[str, typer.Option(help="The label whose probability is the score.")],
    signal: Annotated[list[str], typer.Option(help="A signal to combine, such as perplexity.value. Repeatable.")],
    out: Annotated[str, typer.Option(help="Model file to write (JSON).")],
) -> None:
    """Train a calibrated score from several signals for the ensemble step; evaluated on a held-out tenth.

    The samples are documents with signals: finished runs on text of each label, with the same steps and no rules.
    """
    from curation.quality.ensemble.train import train_ensemble

    made = train_ensemble(_by_label(samples), signal, out, label=label)
    print(f"{out}: AUC {made.metrics.auc:.3f}, ECE {made.metrics.ece:.3f} on {made.metrics.samples:,} held-out samples")
    for name, area in made.alone:
        print(f"  {name} alone: AUC {area:.3f}")
    print(f"card: {made.card}")


@train_app.command("language-stats")
def models_train_language_stats(
    texts: Annotated[list[str], typer.Argument(help="Good texts in the language: JSONL, Parquet, folders or globs.")],
    language: Annotated[str, typer.Option(help="The label of the language, as the language step gives it.")],
    out: Annotated[str, typer.Option(help="JSON file to write; an existing one keeps its other languages.")],
    field: Annotated[str, typer.Option(help="Name of the text field in JSONL and Parquet.")] = "text",
    tail: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of these texts that one rule may drop.")] = 0.05,
) -> None:
    """Learn stop words and thresholds of a language for `heuristics: {thresholds: FILE}`."""
    from curation.quality.heuristics.train_language_stats import train_language_stats

    made = train_language_stats(texts, language, out, field=field, tail=tail)
    print(f"{out}: {language} from {made.documents:,} documents")
    print(f"  stop words: {' '.join(made.stop_words)}")
    changed = {name: value for name, value in made.thresholds.items() if value != made.published[name]}
    print(f"  other than for English: {', '.join(f'{n} {v:g}' for n, v in changed.items()) or 'no threshold'}")


def _by_label(samples: list[str]) -> dict[str, list[str]]:
    sources: dict[str, list[str]] = {}
    for sample in samples:
        label, equals, path = sample.partition("=")
        if not equals:
            raise typer.BadParameter(f"{sample!r}: expected LABEL=PATH, such as good=reference/*.jsonl")
        sources.setdefault(label, []).append(path)
    return sources
