"""Says whether a package is installed, and which pip command installs it when it is not.

A step, reader, tokenizer, logger or command names the modules that it imports (`Step.packages`); `require` is called
before work starts and raises a UserError that ends with the pip command. Modules are looked up, not imported: torch
alone takes two seconds. pyproject.toml lists the same packages; tests/packaging/test_dependencies.py compares both.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable

from curation.core.errors import UserError

# The default install: import name -> what pip is given.
DEFAULT = {
    "datasketch": "datasketch",
    "datatrove": "datatrove",
    "duckdb": "duckdb",
    "fasttext": "fasttext",
    "fsspec": "fsspec",
    "kenlm": "kenlm",
    "lz4": "lz4",
    "numba": "numba",
    "numpy": "numpy",
    "presidio_analyzer": "presidio-analyzer",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "ray": "ray[default]",
    "regex": "regex",
    "resiliparse": "resiliparse",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tiktoken": "tiktoken",
    "tldextract": "tldextract",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "typer": "typer",
    "xxhash": "xxhash",
    "zstandard": "zstandard",
}
# The extras that users install: extra -> the modules that it brings.
EXTRAS = {
    "demo": ("warcio", "orjson"),
    "eval": ("lm_eval",),
    "logs": ("tensorboard", "wandb", "mlflow"),
    "mix": ("lightgbm",),
    "ray-train": ("pandas",),
    "s3": ("s3fs",),
    "sentencepiece": ("sentencepiece",),
    "trafilatura": ("trafilatura", "lxml_html_clean"),
}
# What the training package imports, and what a minimal install for it holds.
TRAINING = ("numpy", "pyarrow", "pydantic", "safetensors", "tokenizers", "torch", "yaml")
# What curation and the command line import: everything of the default install but these.
TRAINING_ONLY = ("safetensors", "torch")
# Packages of the default install bring these, and the code imports them beside those.
_BROUGHT_BY = {"phonenumbers": "presidio_analyzer", "spacy": "presidio_analyzer"}


def is_installed(module: str) -> bool:
    """Whether `import module` would find something. Imports nothing."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a finder that refuses the module
        return False


def extra_of(module: str) -> str | None:
    """The extra that brings a module; None for one of the default install."""
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


def pip_command(modules: Iterable[str]) -> str:
    """The command that installs these modules, say `pip install "gristmill[trafilatura]" kenlm`."""
    extras: dict[str, None] = {}
    names: dict[str, None] = {}
    for module in modules:
        extra = extra_of(module)
        if extra is not None:
            extras[extra] = None
        else:
            module = _BROUGHT_BY.get(module, module)
            names[DEFAULT.get(module, module)] = None
    parts = [f'"gristmill[{",".join(extras)}]"'] if extras else []
    parts += [f'"{name}"' if "[" in name else name for name in names]
    return f"pip install {' '.join(parts)}"


def require(user: str, modules: Iterable[str]) -> None:
    """Raises UserError if one of the modules is missing. `user` says what needs them, such as "step extract"."""
    missing = [m for m in modules if not is_installed(m)]
    if missing:
        raise UserError(f"{user}: {describe_missing(missing)}")


def describe_missing(modules: Iterable[str]) -> str:
    """What is missing and the command that installs it, for an error message."""
    missing = list(modules)
    verb = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {verb} not installed\n  install with: {pip_command(missing)}"


def explain_import_error(error: ImportError) -> str | None:
    """What `describe_missing` says of the module that an ImportError names; None for a module that we do not know."""
    module = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and (module in DEFAULT or module in _BROUGHT_BY or extra_of(module)):
        return describe_missing([module])
    return None
