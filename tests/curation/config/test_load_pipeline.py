"""The pipeline file: what comes out of a good one, and what a person reads about a bad one.

Covers: overrides.py, pipeline.py, step_options.py, curation/step.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa
import pytest

from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.step import GlobalStep, MapStep


@dataclass
class Language(MapStep):
    model: str = "lid.176"
    k: int = 1
    floor: float = 0.0
    mode: Literal["fast", "good"] = "fast"
    codes: list[str] = field(default_factory=list)
    name: str = "language"

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("code", pa.string()), ("score", pa.float64())])

    def rules(self) -> Mapping[str, str]:
        return {"score": f"{self.name}.score >= 0.5", "known": f"{self.name}.code IS NOT NULL"}

    def models(self) -> Sequence[str]:
        return (self.model,)

    def check(self) -> None:
        if self.k > 10:
            raise UserError(f"k is {self.k}\n  expected 10 at most")


@dataclass
class Pii(MapStep):
    entities: list[str] = field(default_factory=lambda: ["EMAIL_ADDRESS"])
    name: str = "pii"
    rewrites: ClassVar[bool] = True
    scrubs: ClassVar[bool] = True

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("count", pa.int64())])


@dataclass
class Dedup(GlobalStep):
    threshold: float = 0.72
    name: str = "dedup"

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("of", pa.string()), ("similarity", pa.float64())])

    def rules(self) -> Mapping[str, str]:
        return {"duplicate": f"{self.name}.of IS NULL"}


@dataclass
class Decontaminate(MapStep):
    against: list[str]
    name: str = "decontaminate"
    reads: ClassVar[tuple[str, ...]] = ("text", "language")

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("overlap", pa.float64())])

    def inputs(self) -> Sequence[str]:
        return self.against


@dataclass
class Text:
    field: str = "text"
    tags: tuple[str, ...] = ()


CATALOGUE = {"language": Language, "pii": Pii, "dedup": Dedup, "decontaminate": Decontaminate, "gone": "no.such:Step"}
READERS = {"text": Text}

GOOD = """\
name: quick
sources:
  - {name: web, read: text, root: crawl, path: "*.jsonl", field: body, tags: [a, b]}
  - {name: more, domain: code, collection: c, read: text, path: "**/*"}
exclude: [bad.jsonl]
steps:
  - language: {codes: [no, en], floor: 1}
    keep: {language: "language.code = 'en' AND language.score >= quantile(language.score, 0.2, by domain)", known: null}
  - pii
  - dedup: {threshold: 0.8}
  - decontaminate: {against: ["eval/*.jsonl", /abs/x.jsonl]}
    keep:
      overlap: decontaminate.overlap < 0.5
mix: {budget: 2e6, weights: {web: 0.7, code: 0.3}, max_epochs: 4}
tokenizer: {train: {kind: bpe, vocab: 8_192}}
shards: {tokens_per_shard: 50_000_000}
store_raw: true
"""


def load(tmp_path: Path, text: str, **options):
    file = tmp_path / "pipeline.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load_pipeline(str(file), catalogue=CATALOGUE, readers=READERS, **options)


def refused(tmp_path: Path, text: str, **options) -> str:
    with pytest.raises(UserError) as error:
        load(tmp_path, text, **options)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_a_good_file(tmp_path):
    p = load(tmp_path, GOOD)
    web, more = p.sources
    assert (p.name, p.seed) == ("quick", 17)
    assert (web.domain, web.collection, web.root) == ("web", "web", f"{tmp_path}/crawl")
    assert web.reader == Text(field="body", tags=("a", "b"))
    assert (more.domain, more.collection, more.root, more.path) == ("code", "c", str(tmp_path), "**/*")
    assert p.exclude == (f"{tmp_path}/bad.jsonl",)
    language, pii, dedup, decontaminate = p.steps
    assert language.step == Language(codes=["no", "en"], floor=1.0)
    assert list(language.rules) == ["score", "language"]
    assert language.parsed[1].quantiles[0].by == "domain"
    assert (pii.name, dict(pii.rules)) == ("pii", {})
    assert dedup.step.threshold == 0.8
    assert decontaminate.step.against == [f"{tmp_path}/eval/*.jsonl", "/abs/x.jsonl"]
    assert decontaminate.line.endswith("pipeline.yaml:11")
    assert p.mix.budget == 2_000_000 and p.mix.weights == {"web": 0.7, "code": 0.3} and p.mix.max_epochs == 4
    assert p.tokenizer.train.vocab == 8192


def test_resolved_is_plain_complete_and_the_same_elsewhere(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = load(tmp_path / "a", GOOD).resolved(), load(tmp_path / "b", GOOD).resolved()
    assert one == two
    assert json.loads(json.dumps(one)) == one
    assert one["steps"][0]["rules"]["score"] == "language.score >= 0.5"
    assert one["sources"][0]["root"] == "crawl"
    assert one["shards"] == {"tokens_per_shard": 50_000_000}
    assert one["tokenizer"]["train"]["kind"] == "bpe"


BASE = "sources: [{name: web, read: text, path: x}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "stepz: []", "pipeline.yaml:2: stepz: unknown key 'stepz'\n  did you mean steps?"),
        ("steps: []", "pipeline.yaml:1: the required key 'sources' is missing"),
        ("sources: []", "pipeline.yaml:1: sources: is []\n  expected"),
        ("[1]", "pipeline.yaml: is not a mapping"),
        ("", "is not a mapping"),
        (BASE + "seed: x", "pipeline.yaml:2: seed: is 'x'\n  expected an integer"),
        (BASE + "seed: '3'", "pipeline.yaml:2: seed: is '3'"),
        (BASE + "validation: 1.5", "validation: is 1.5\n  expected less than 1"),
        (BASE + "retention: some", "retention: is 'some'\n  expected 'all', 'kept' or 'none'"),
        (BASE + "name: ../x", "name: is '../x', which cannot be a pipeline's name"),
        (BASE + "a: [\n", "pipeline.yaml:3:1: is not YAML"),
        (
            BASE + "seed: 1\nseed: 2",
            "pipeline.yaml:3: has the key 'seed' a second time\n  the first is at pipeline.yaml:2",
        ),
        (BASE + "name: ${GRISTMILL_UNSET}", "pipeline.yaml:2: the variable GRISTMILL_UNSET"),
        (BASE + "name: &a [*a]", "does an anchor refer to itself?"),
        (BASE + "name: !!python/object:os.system x", "has the tag"),
        (BASE + "name: [a]", "name: is ['a']\n  expected a string"),
        (BASE + "shards: {tokens_per_shard: 2000000000}", "expected at most 1073741824"),
        (BASE + "shards: {tokens: 5}", "shards.tokens: unknown key 'tokens'\n  did you mean tokens_per_shard?"),
        (BASE + "mix: {weights: {wed: 1}}", "mix.weights.wed: no source has the domain 'wed'\n  did you mean web?"),
        (BASE + "mix: {weights: {web: 0}}", "mix.weights: all weights are 0"),
        (BASE + "mix: {weights: {web: -1}}", "mix.weights.web: is -1\n  expected at least 0"),
        (BASE + "mix: {weights: even}", "mix.weights: is 'even'\n  expected a mapping or 'natural'"),
        (BASE + "tokenizer: {}", "has none of train, path, tiktoken and sentencepiece"),
        (BASE + "tokenizer: {path: a, tiktoken: b}", "has path and tiktoken of train"),
        (BASE + "tokenizer: {train: {}, eos: </s>}", "tokenizer.eos: a trained tokenizer has"),
        (BASE + "tokenizer: {train: {vocabulary: 5}}", "unknown key 'vocabulary'\n  did you mean vocab?"),
        (BASE + "steps: [langage]", "pipeline.yaml:2: steps[0]: unknown step 'langage'\n  did you mean language?"),
        (BASE + "steps:\n  - langage: {}", "pipeline.yaml:3: steps[0].langage: unknown step"),
        (BASE + "steps: [{language: {}, pii: {}}]", "steps[0]: is the keys language, pii\n  expected one step"),
        (BASE + "steps: [3]", "steps[0]: is 3\n  expected one step"),
        (
            BASE + "steps: [{language: fast}]",
            "steps[0].language: is 'fast'\n  expected the step's options as a mapping",
        ),
        (BASE + "steps: [gone]", "no.such cannot be imported"),
        (BASE + "steps: [x.py:Y]", "no such file"),
        (
            BASE + "steps:\n- language:\n    mdel: x",
            "pipeline.yaml:4: steps[0].language.mdel: the step 'language' has no option 'mdel'\n  did you mean model",
        ),
        (BASE + "steps: [{language: {k: 1.5}}]", "language.k: is 1.5\n  expected an integer"),
        (BASE + "steps: [{language: {k: '1'}}]", 'language.k: is "1"\n  expected an integer'),
        (BASE + "steps: [{language: {k: true}}]", "language.k: is true\n  expected an integer"),
        (BASE + "steps: [{language: {floor: high}}]", 'language.floor: is "high"\n  expected a number'),
        (BASE + "steps: [{language: {mode: bad}}]", 'is "bad"\n  expected one of "fast", "good"'),
        (BASE + "steps: [{language: {codes: [en, 3]}}]", "language.codes[1]: is 3\n  expected a list of strings"),
        (BASE + "steps: [{language: {k: 11}}]", "steps[0].language: k is 11\n  expected 10 at most"),
        (BASE + "steps: [{decontaminate: {}}]", "the step 'decontaminate' needs against (a list of strings)"),
        (
            BASE + "steps: [{decontaminate: {against: [x]}}]",
            "decontaminate reads 'language', which no earlier step computes",
        ),
        (BASE + "steps: [{language: {name: text}}]", "a step cannot be named 'text'"),
        (BASE + "steps: [{language: {name: a-b}}]", "a step cannot be named 'a-b'"),
        (BASE + "steps: [language, language]", "a second step named 'language'"),
        (BASE + "steps: [{language: {}, keep: {x: 3}}]", "steps[0].keep.x: is 3\n  expected SQL in quotes"),
        (
            BASE + "steps: [{language: {}, keep: {scor: null}}]",
            "language has no rule 'scor' to remove\n  did you mean score?",
        ),
        (BASE + "steps: [{language: {}, keep: x}]", "steps[0].keep: is 'x'\n  expected rules by name"),
        (
            BASE + "steps:\n- language: {}\n  keep:\n    x: language.scor > 1",
            "pipeline.yaml:5: steps[0].keep.x: rule 'x' names language.scor",
        ),
        (
            BASE + "steps: [{language: {}, keep: {x: dedup.of IS NULL}}, dedup]",
            "names dedup.of, which no step so far computes",
        ),
        (BASE + "steps: [{language: {}, keep: {x: 'language.score >'}}]", "steps[0].keep.x: rule 'x' is not SQL"),
        (
            BASE + "steps: [dedup, pii]",
            "pipeline.yaml:2: dedup needs all documents, so text would be stored before pii",
        ),
        (
            BASE + "steps: [{language: {}, keep: {q: 'language.score > quantile(language.score, 0.5)'}}, pii]",
            "language has a rule with a quantile, so text would be stored before pii",
        ),
        (
            "sources: [{name: web, read: text, path: x}, {name: web, read: text, path: y}]",
            "a second source named 'web'",
        ),
        ("sources: [{name: web, read: txt, path: x}]", "sources[0].read: unknown reader 'txt'\n  did you mean text?"),
        ("sources: [{name: web, read: text}]", "sources[0]: the required key 'path' is missing"),
        (
            "sources: [{name: web, read: text, path: x, domain: a/b}]",
            "sources[0].domain: is 'a/b', which cannot be a domain",
        ),
        ("sources: [{name: web, read: text, path: x, feld: a}]", "has no option 'feld'\n  did you mean field?"),
        ("sources: [web]", "sources[0]: is 'web'"),
    ],
)
def test_a_bad_file_is_refused_with_place_and_advice(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_several_faults_are_said_at_once(tmp_path):
    message = refused(tmp_path, BASE + "seeds: 3\nretention: no\n")
    assert "pipeline.yaml:2: seeds: unknown key" in message and "pipeline.yaml:3: retention" in message


def test_missing_file_and_no_utf8(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        load_pipeline(str(tmp_path / "nowhere.yaml"), catalogue=CATALOGUE, readers=READERS)
    (tmp_path / "latin.yaml").write_bytes("name: Müller".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        load_pipeline(str(tmp_path / "latin.yaml"), catalogue=CATALOGUE, readers=READERS)


def test_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("BUDGET", "5000")
    text = BASE + 'name: ${NAME:-fallback}\nmix: {budget: "${BUDGET}"}'
    p = load(tmp_path, text)
    assert (p.name, p.mix.budget) == ("fallback", 5000)
    assert "mix.budget: is '5000'" in refused(
        tmp_path, text.replace('"', "'")
    )  # single quotes: a string whatever it is
    assert 'in quotes: "${VAR}"' in refused(tmp_path, text.replace('"', ""))
    keep = "steps: [{language: {}, keep: {a: \"language.code <> '$${x}'\"}}]"
    assert load(tmp_path, BASE + keep).steps[0].rules["a"] == "language.code <> '${x}'"


def test_overrides(tmp_path):
    p = load(
        tmp_path,
        GOOD,
        sets=[
            "steps.language.keep.language=language.code = 'de' AND language.score > 0.1",
            "steps.language.keep.score=null",
            "steps.language.k=3",
            "steps.language.codes=[fr]",
            "steps.pii.entities=[US_SSN]",
            "sources.more.root=/data",
            "seed=4",
            "engine.batch_rows=7",
            "mix.weights.web=0.1",
        ],
    )
    language, pii = p.steps[:2]
    assert dict(language.rules) == {"language": "language.code = 'de' AND language.score > 0.1"}
    assert (language.step.k, language.step.codes, pii.step.entities) == (3, ["fr"], ["US_SSN"])
    assert (p.sources[1].root, p.seed, p.engine.batch_rows) == ("/data", 4, 7)
    assert p.mix.weights["web"] == 0.1
    assert p.resolved()["seed"] == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seed", "--set seed: has no value"),
        ("=3", "has no key"),
        ("seed.x=3", "--set seed.x=3: seed is 3, which has no keys below it"),
        ("seed=x", "--set seed=x: seed: is 'x'\n  expected an integer"),
        ("steps.lang.k=1", "no such name among steps\n  expected one of language"),
        ("steps.language=1", "sets all of steps.language"),
        (
            "steps.language.kk=1",
            "--set steps.language.kk=1: steps[0].language.kk: the step 'language' has no option 'kk'",
        ),
        (
            "steps.language.keep.x=language.a > 1",
            "--set steps.language.keep.x=language.a > 1: steps[0].keep.x: rule 'x' names",
        ),
        ("mix=[", "'[' is not YAML"),
    ],
)
def test_bad_overrides(tmp_path, given, said):
    assert said in refused(tmp_path, BASE + "seed: 3\nsteps: [language]", sets=[given])


def test_rules_for_some_documents_only(tmp_path):
    text = BASE + "steps: [{language: {}, keep: {known: null, a: language.code = 'en'}, where: domain = 'web'}]"
    p = load(tmp_path, text)
    assert p.steps[0].rules["a"] == "NOT coalesce((domain = 'web'\n), FALSE) OR (language.code = 'en'\n)"
    p = load(tmp_path, text, sets=["steps.language.where=domain <> 'code'"])
    assert p.steps[0].rules["score"] == "NOT coalesce((domain <> 'code'\n), FALSE) OR (language.score >= 0.5\n)"
    assert "steps[0].where: rule 'where' is not SQL" in refused(tmp_path, text, sets=["steps.language.where=domain <"])
    assert "steps[0].where: is 3" in refused(tmp_path, BASE + "steps: [{language: {}, where: 3}]")


def test_a_step_of_ones_own_and_two_of_a_kind(tmp_path):
    (tmp_path / "own.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            import pyarrow as pa
            from curation.step import MapStep

            @dataclass
            class Shout(MapStep):
                loud: int = 1
                name: str = "shout"

                @property
                def signals(self):
                    return pa.schema([("share", pa.float64())])
            """
        )
    )
    text = """
        sources: [{name: web, read: text, path: x}]
        steps:
          - own.py:Shout: {loud: 2}
            keep: {quiet: shout.share < 0.5}
          - own.py:Shout: {name: again}
            keep: {quiet: again.share < shout.share}
    """
    p = load(tmp_path, text, sets=["steps.again.loud=5", "steps.Shout.loud=9"])
    assert [(e.name, e.step.loud) for e in p.steps] == [("shout", 9), ("again", 5)]
    assert p.steps[0].target == f"{tmp_path}/own.py:Shout"
    assert type(p.steps[0].step) is type(p.steps[1].step)
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    assert "cannot be imported: ModuleNotFoundError" in refused(tmp_path, BASE + "steps: [broken.py:X]")
    assert "has no class or function Y" in refused(tmp_path, BASE + "steps: [own.py:Y]")
    assert "is not a step" in refused(tmp_path, BASE + "steps: [pathlib:Path]")


def test_a_model_beside_the_file_is_found_and_a_name_is_left(tmp_path):
    (tmp_path / "my.bin").write_bytes(b"x")
    assert load(tmp_path, BASE + "steps: [{language: {model: my.bin}}]").steps[0].step.model == f"{tmp_path}/my.bin"
    assert load(tmp_path, BASE + "steps: [{language: {model: lid.176}}]").steps[0].step.model == "lid.176"


def test_importing_curation_is_light():
    program = (
        "import sys, curation; print(sorted({'torch','ray','duckdb','pyarrow','pydantic','numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
