"""The step `perplexity`: computes the perplexity of a document under a KenLM reference model.

    value = 10 ^ ( - (sum over lines of log10 p(line </s> | <s>)) / tokens ),   tokens = words + lines

as in CCNet (Wenzek et al. 2020, section 3.3): each line is scored as a sentence of its own, its end counts as a token,
and the sum is taken over the document. A low value is similar to the reference; a very low one is boilerplate. Training
and scoring share one definition of a word (ngram/tokenize_text.py); cc_net's, for its published Wikipedia models, is in
ccnet_normalization.py.

The step has no rules of its own. CCNet's head is `perplexity.value <= quantile(perplexity.value, 0.3, by
language.code)`, its middle ends at 0.6; an absolute cut-off is `perplexity.value <= 340`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation import document
from curation.core.errors import UserError
from curation.quality.ngram.tokenize_text import stored_form
from curation.quality.perplexity.kenlm_model import CcnetModel, WordModel, default_tokenizer_path, perplexity
from curation.step import MapStep

Form = Literal["words", "spaces", "ccnet"]

_SHARES = {"paragraph_p10": 0.1, "paragraph_p50": 0.5, "paragraph_p90": 0.9}


@dataclass
class Perplexity(MapStep):
    """Signals: `value`, the perplexity per token, null for a text without words or in a language without a model;
    `tokens`, the number of words and line ends scored; `unknown`, the share of words that the model does not know.
    Where that is most of them, as with a model of another language, the value says little.

    model       path of an ARPA file or a KenLM binary (`gristmill models train ngram` trains one)
    languages   language -> model, for documents in that language; all others use `model`, if given
    language    the signal that holds the language of a document
    form        `words`: the models were trained with Gristmill's default; `spaces`: on text split at white space, as
                lmplz does; `ccnet`: cc_net's published models, each with its SentencePiece model beside it
                (`en.arpa.bin` with `en.sp.model`)
    tokenizer   form ccnet: one SentencePiece model for all models, instead of the ones beside them
    paragraphs  adds the signals `paragraphs`, the number of lines with a word; `paragraph_p10`, `_p50` and `_p90`: a
                tenth, half and nine tenths of the tokens are in lines of at most this perplexity
    """

    model: str = ""
    languages: dict[str, str] = field(default_factory=dict)
    language: str = "language.code"
    form: Form = "words"
    tokenizer: str = ""
    paragraphs: bool = False
    name: str = "perplexity"
    _opened: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("text", self.language.partition(".")[0]) if self.languages else ("text",)

    @property
    def signals(self) -> pa.Schema:
        schema = [("value", pa.float64()), ("tokens", pa.int64()), ("unknown", pa.float64())]
        if self.paragraphs:
            schema += [("paragraphs", pa.int64()), *((name, pa.float64()) for name in _SHARES)]
        return pa.schema(schema)

    def not_judged(self) -> Mapping[str, str]:
        return {"value": f"documents without a word{', or in a language without a model' if self.languages else ''}"}

    def packages(self) -> Sequence[str]:
        return ("kenlm", "sentencepiece") if self.form == "ccnet" else ("kenlm",)

    def _model_names(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self.model, *self.languages.values()) if name))

    def models(self) -> Sequence[str]:
        named = self._model_names()
        if self.form == "ccnet":
            named += [self.tokenizer] if self.tokenizer else [default_tokenizer_path(name) for name in named]
        return tuple(dict.fromkeys(named))

    def check(self) -> None:
        if not self.model and not self.languages:
            raise UserError(
                f"{self.name}: option `model` is missing; give the path of an ARPA file or KenLM binary "
                "(`gristmill models train ngram TEXT --order 5 --out X.bin` trains one), or set `languages`"
            )
        if self.tokenizer and self.form != "ccnet":
            raise UserError(f"{self.name}: option `tokenizer` is only for `form: ccnet`, not for {self.form}")
        for name in self._model_names():
            trained = stored_form(name)
            if trained is not None and trained != self.form:
                raise UserError(
                    f"{self.name}: model {name} was trained on text of form {trained}, but the step has form: "
                    f"{self.form}; perplexities would be meaningless. Set `form: {trained}`, or train the model again "
                    f"with --form {self.form}"
                )

    def open(self) -> None:
        names = {language: name for language, name in [("", self.model), *self.languages.items()] if name}
        opened = {name: self._load_model(name) for name in self._model_names()}
        self._opened = {language: opened[name] for language, name in names.items()}

    def _load_model(self, name: str) -> WordModel | CcnetModel:
        if self.form == "ccnet":
            return CcnetModel(name, self.tokenizer or default_tokenizer_path(name))
        return WordModel(name, self.form)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns: dict[str, list[Any]] = {f.name: [None] * batch.num_rows for f in self.signals}
        for name in ("tokens", "paragraphs"):
            if name in columns:
                columns[name] = [0] * batch.num_rows
        for model, rows, texts in self._by_model(batch):
            for at, (row, (lines, tokens)) in enumerate(zip(rows, model.tokenize(texts), strict=True)):
                if not tokens:
                    continue
                scores = list(map(model.kenlm.score, lines))
                columns["value"][row], columns["tokens"][row] = perplexity(sum(scores), tokens), tokens
                columns["unknown"][row] = unknown_share(lines, model.known)
                if self.paragraphs:
                    paragraphs = model.paragraphs(lines, scores, texts[at].as_py())
                    columns["paragraphs"][row] = len(paragraphs)
                    for name, value in zip(_SHARES, weighted_quantiles(paragraphs, _SHARES.values()), strict=True):
                        columns[name][row] = value
        column = pa.StructArray.from_arrays(
            [pa.array(columns[f.name], f.type) for f in self.signals], fields=list(self.signals)
        )
        return document.with_column(batch, self.name, column)

    def _by_model(self, batch: pa.RecordBatch) -> Iterator[tuple[Any, Sequence[int], pa.Array]]:
        """Each model with the rows that it scores and their texts."""
        texts = batch.column("text")
        if not self.languages:
            yield self._opened[""], range(batch.num_rows), texts
            return
        step, _, signal = self.language.partition(".")
        column = batch.column(step)
        spoken = pc.struct_field(column, signal) if signal else column
        rows: dict[str, list[int]] = {}
        for row, language in enumerate(spoken.to_pylist()):
            rows.setdefault(language if language in self.languages else "", []).append(row)
        for language in sorted(rows):
            if language in self._opened:
                yield self._opened[language], rows[language], texts.take(pa.array(rows[language], pa.int64()))


def unknown_share(lines: Sequence[bytes] | Sequence[str], known: Callable[[Any], bool]) -> float:
    """The share of the words of lines (separated by spaces) that are not known."""
    seen = [known(word) for line in lines for word in line.split()]
    return seen.count(False) / len(seen) if seen else 0.0


def weighted_quantiles(lines: Sequence[tuple[float, int]], shares: Iterable[float]) -> list[float | None]:
    """For each share the smallest value such that lines up to it hold that share of all tokens; None without lines.

    lines: (value, tokens) each.
    """
    ordered = sorted(lines)
    total = sum(tokens for _, tokens in ordered)
    out: list[float | None] = []
    for share in shares:
        seen = 0
        found = None
        for value, tokens in ordered:
            seen += tokens
            found = value
            if seen >= share * total:
                break
        out.append(found)
    return out
