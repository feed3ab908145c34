"""Scores continuations of a context by their log-likelihood, as lm-evaluation-harness does.

Requests are packed into sequences as documents are: they do not attend to each other, and only the last sequence of a
pass is padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from training.checkpoint.load_model import LoadedModel
from training.model.attention import attention_backend, attention_mask

Request = tuple[str, str]  # the context, and the continuation that is scored


def encode_pair(trained: LoadedModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of the context and of the continuation; spaces between them go to the continuation, as in lm-eval."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole, before = trained.encode(context + continuation), trained.encode(context)
    return before, whole[len(before) :]


@torch.no_grad()
def likelihoods(trained: LoadedModel, requests: Sequence[Request], batch_size: int = 8) -> list[tuple[float, bool]]:
    """For each request the continuation's log-likelihood in nats, and whether greedy decoding would write it.

    A request longer than `trained.max_seq_len` loses the beginning of its context. `batch_size`: packed sequences per
    forward pass.
    """
    rows: list[tuple[int, list[int], int]] = []  # request number, tokens after an EOS, how many of them are scored
    for number, (context, continuation) in enumerate(requests):
        before, after = encode_pair(trained, context, continuation)
        rows.append(
            (number, [trained.eos, *before, *after][-(trained.max_seq_len + 1) :], min(len(after), trained.max_seq_len))
        )
    found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    packed: list[list[tuple[int, list[int], int]]] = []
    room = 0
    for row in sorted(rows, key=lambda r: -len(r[1])):
        if not packed or len(row[1]) - 1 > room:
            packed.append([])
            room = trained.max_seq_len
        packed[-1].append(row)
        room -= len(row[1]) - 1
    for begin in range(0, len(packed), batch_size):
        for number, value in _score(trained, packed[begin : begin + batch_size]):
            found[number] = value
    return found


def _score(
    trained: LoadedModel, packed: Sequence[Sequence[tuple[int, list[int], int]]]
) -> Iterable[tuple[int, tuple[float, bool]]]:
    model = trained.model
    device = model.embedding.weight.device
    length = max(sum(len(tokens) - 1 for _, tokens, _ in sequence) for sequence in packed)
    inputs = torch.full((len(packed), length), trained.eos, dtype=torch.int64)
    documents = torch.full((len(packed), length), max(len(w) for w in packed), dtype=torch.int64)
    places: list[tuple[int, int, int, int]] = []  # request number, row, and from where to where it is scored
    targets: list[int] = []
    for row, sequence in enumerate(packed):
        at = 0
        for i, (number, tokens, scored) in enumerate(sequence):
            size = len(tokens) - 1
            inputs[row, at : at + size] = torch.tensor(tokens[:-1])
            documents[row, at : at + size] = i
            places.append((number, row, at + size - scored, at + size))
            targets += tokens[len(tokens) - scored :]
            at += size
    cast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if cast else model.norm.weight.dtype
    backend = model.attention_backend or attention_backend(device, dtype)
    # Not flex: lengths differ from batch to batch, and it would be compiled for each
    mask = attention_mask(documents.to(device), "sdpa" if backend == "flex" else backend, dtype)
    hidden = model.hidden_states(inputs.to(device), mask)
    picked = torch.cat([hidden[row, a:b] for _, row, a, b in places])
    wanted = torch.tensor(targets, device=device)
    values, best = [], []
    for begin in range(0, len(picked), 256):
        logits = model.head(picked[begin : begin + 256]).float()
        label = wanted[begin : begin + 256, None]
        values.append(torch.log_softmax(logits, dim=-1).gather(1, label)[:, 0].double())
        best.append(logits.argmax(dim=-1) == label[:, 0])
    value, greedy = torch.cat(values).cpu(), torch.cat(best).cpu()
    at = 0
    for number, _, a, b in places:
        part = slice(at, at + b - a)
        yield number, (float(value[part].sum()), bool(greedy[part].all()))
        at += b - a
