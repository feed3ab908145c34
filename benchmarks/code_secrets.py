"""Secrets in source code: how many of those planted are found, and how many clean files have a false alarm.

    python -m benchmarks.code_secrets [FOLDER]  FOLDER: of source files; the installed Python packages unless given

300 files get one secret each, of 24 kinds, in the way that it stands in code of that kind (assignment, mapping,
environment file, URL, comment). 5,000 other files are taken to be clean: what is found in them is printed, cut, so
that one can see which are secrets after all. The kinds were known when the patterns were written.
"""

from __future__ import annotations

import base64
import random
import string
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from curation.safety.pii.secrets import SECRETS, find_secrets

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ANY, HEX = UPPER + LOWER + DIGITS, DIGITS + "abcdef"
LINES = (
    'API_KEY = "{}"', "  'token': '{}',", 'client_secret: "{}"', "export SECRET_KEY={}", '"accessKey": "{}",',
    "# the key is {}", 'requests.get(url, headers={{"Authorization": "Bearer {}"}})', 'const apiKey = "{}";',
)  # fmt: skip
NAMED = LINES[:5] + LINES[7:]


def planted(rng: random.Random) -> tuple[str, str, str]:
    """(kind, value, line)."""

    def some(alphabet: str, size: int) -> str:
        return "".join(rng.choices(alphabet, k=size))

    def base(size: int) -> str:
        return base64.b64encode(rng.randbytes(size)).decode()

    known = {
        "AWS": "AKIA" + some(UPPER + "234567", 16), "GitHub": "ghp_" + some(ANY, 36),
        "GitHub 2": "github_pat_" + some(ANY, 82),
        "GitLab": "glpat-" + some(ANY + "-_", 20),
        "Slack": f"xoxb-{some(DIGITS, 12)}-{some(DIGITS, 12)}-{some(ANY, 24)}",
        "Stripe": "sk_live_" + some(ANY, 24), "Google": "AIza" + some(ANY + "-_", 34) + "a",
        "OpenAI": "sk-" + some(ANY, 48),
        "Anthropic": "sk-ant-api03-" + some(ANY, 93), "Hugging Face": "hf_" + some(UPPER + LOWER, 34),
        "npm": "npm_" + some(ANY, 36),
        "SendGrid": f"SG.{some(ANY, 22)}.{some(ANY, 43)}", "Twilio": "SK" + some(HEX, 32),
        "DigitalOcean": "dop_v1_" + some(HEX, 64), "Shopify": "shpat_" + some(HEX, 32),
        "JWT": ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJ" + some(ANY, 60), some(ANY + "-_", 43)]),
        "Telegram": some("123456789", 9) + ":AA" + some(ANY, 33),
    }  # fmt: skip
    kind = rng.choice([*known, "hex", "base64", "UUID", "password", "URL", "private key", "private key in a string"])
    if kind in known:
        return kind, known[kind], rng.choice(LINES).format(known[kind])
    if kind in ("hex", "base64", "UUID"):
        value = {"hex": some(HEX, 40), "base64": base(30), "UUID": "-".join(some(HEX, n) for n in (8, 4, 4, 4, 12))}[
            kind
        ]
        return kind, value, rng.choice(NAMED).format(value)
    if kind == "password":
        value = "".join(rng.choices(ANY + "!#%+", k=9)) + some(UPPER, 1) + some(LOWER, 1) + some(DIGITS, 1)
        return kind, value, rng.choice(('password = "{}"', "PASSWORD='{}'", '"db_password": "{}",')).format(value)
    if kind == "URL":
        value = some(ANY, 12) + some(UPPER, 1) + some(LOWER, 1) + some(DIGITS, 1)
        return kind, value, f'DATABASE_URL = "postgres://miller:{value}@db.mill.org:5432/grain"'
    body = base(600)
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    if kind == "private key":
        block = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----"])
    else:
        block = "\\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])
    return kind, block, f'KEY = """{block}"""'


def files(folder: Path, count: int, rng: random.Random) -> list[tuple[Path, str]]:
    suffixes = {
        ".py",
        ".js",
        ".ts",
        ".c",
        ".h",
        ".cpp",
        ".json",
        ".yaml",
        ".yml",
        ".toml",
        ".sh",
        ".cfg",
        ".pyi",
        ".css",
    }
    paths = sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file() and p.stat().st_size < 1 << 18)
    rng.shuffle(paths)
    found: list[tuple[Path, str]] = []
    for path in paths:
        if len(found) == count:
            break
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            found.append((path, text))
    return found


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["purelib"])
    rng = random.Random(29)
    sample = files(folder, 5300, rng)
    hits, missed = 0, Counter[str]()
    for _, text in sample[:300]:
        kind, value, line = planted(rng)
        lines = text.split("\n")
        at = rng.randrange(len(lines) + 1)
        new = "\n".join([*lines[:at], line, *lines[at:]])
        begin = new.find(value)
        covered = any(lo <= begin and hi >= begin + len(value) for lo, hi, _, _ in find_secrets(new, SECRETS))
        hits += covered
        missed[kind] += not covered
    print(f"planted: {hits} of 300 found, recall {hits / 300:.3f}; missed {dict(+missed)}")
    clean = sample[300:]
    alarms: list[tuple[Path, list[tuple[str, str]]]] = []
    size, begin_s = sum(len(text) for _, text in clean), time.process_time()
    for path, text in clean:
        found = [(e, text[lo : min(hi, lo + 60)].partition("\n")[0]) for lo, hi, e, _ in find_secrets(text, SECRETS)]
        if found:
            alarms.append((path, found))
    seconds = time.process_time() - begin_s
    print(f"clean: {len(alarms)} of {len(clean)} files with a finding, {len(alarms) / max(1, len(clean)):.2%}; "
          f"{size / 1e6 / seconds:.1f} MB/s")  # fmt: skip
    for path, found in alarms:
        print("  ", path.relative_to(folder), [(e, v[:12] + "…" + str(len(v))) for e, v in found[:3]])


if __name__ == "__main__":
    main()
