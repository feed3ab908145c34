"""Commands between our checkpoints and Hugging Face's format: export, import."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.app import TRAIN, app, make_console


@app.command(rich_help_panel=TRAIN)
def export(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder to write; must not exist, or be empty.")],
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
) -> None:
    """Write the newest checkpoint in Hugging Face's Llama format, for transformers and vLLM."""
    import torch

    from curation.core.errors import UserError
    from training.checkpoint.huggingface import export as write

    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in types:
        raise UserError(f"--dtype {dtype}: expected {', '.join(types)}")
    make_console().print(f"{write(run, out, dtype=types[dtype])}: written", highlight=False)


@app.command("import", rich_help_panel=TRAIN)
def import_(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model in Hugging Face's Llama or Qwen3 format.")],
    run: Annotated[str, typer.Argument(metavar="DIR", help="The training run to make of it.")],
) -> None:
    """Make a run of a Hugging Face model: to generate, evaluate, export, or train on from (init_from)."""
    from training.checkpoint.huggingface import import_hf

    make_console().print(f"{import_hf(folder, run)}: written", highlight=False)
