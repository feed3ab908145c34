"""The definitions of the heuristics in plain Python, slow and obvious, which the kernels must equal."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter

import pyarrow as pa
import regex
from hypothesis import strategies as st

from curation.document import clean_text
from curation.quality.heuristics.heuristics import Heuristics

FORMULA = re.compile(r"\$+(?=[^\s$]).+?(?<![\s\\])\$(?![\d{])\$*", re.S)  # as TeX is written in text


def _letter(c: str) -> bool:
    return unicodedata.category(c)[0] == "L"


def _counts(c: str) -> bool:
    return unicodedata.category(c)[0] in "LMN"


def _lower(c: str) -> bool:
    return unicodedata.category(c) == "Ll"


def _upper(c: str) -> bool:
    return unicodedata.category(c) in ("Lu", "Lt")


def _digit(c: str) -> bool:
    return c in "0123456789"


def _icon(c: str) -> bool:
    return unicodedata.category(c) == "So"


QUOTES = "'\"”“`‘´’‚„»«「」『』"


def _peels(c: str) -> bool:
    if c in "/\\@.%§":
        return False
    return c in "–—_<>`´" or unicodedata.category(c) in ("Ps", "Pe", "Pi", "Pf", "Po", "So")


def _opens(c: str) -> bool:
    return _peels(c) or c in "%=+§" or unicodedata.category(c) == "Sc"


@functools.cache
def _terminal(c: str) -> bool:
    return c in "。．｡！？" or (ord(c) < 0x20000 and bool(regex.match(r"\p{Sentence_Terminal}", c)))


@functools.cache
def _script(c: str) -> int:
    code = ord(c)
    blocks = [(0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x30FF)]
    blocks += [(0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)]
    blocks += [(0x1B000, 0x1B16F), (0x20000, 0x3FFFF)]
    blocks += [(0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F), (0xA980, 0xA9FF), (0xAA60, 0xAADF)]
    if not any(lo <= code <= hi for lo, hi in blocks):
        return 0
    if code < 0x2E80 or 0xA980 <= code <= 0xAADF:
        return 4
    if 0x3040 <= code <= 0x309F or 0x1B001 <= code <= 0x1B11F:
        return 8
    if 0x30A0 <= code <= 0x30FF or 0x31F0 <= code <= 0x31FF or 0xFF66 <= code <= 0xFF9F or code == 0x1B000:
        return 9
    return 2


def _address(chunk: str) -> bool:
    if "://" in chunk and chunk.index("://") < len(chunk) - 2 and not _counts(chunk[0]):
        return False
    rest = chunk.split("://", 1)[1] if "://" in chunk[: len(chunk)] and chunk.index("://") < len(chunk) - 2 else chunk
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if ":" in host:
        host, _, port = host.partition(":")
        if not re.fullmatch(r"[0-9]{2,5}", port):
            return False
    *labels, last = host.split(".")
    if not labels or len(last) < 2 or not all(_lower(c) for c in last):
        return False
    for label in labels:
        if not label or not _counts(label[0]) or not _counts(label[-1]):
            return False
        if not all(_counts(c) or c in "-_" or ord(c) >= 0xA1 for c in label):
            return False
    return True


def _closing(s: str) -> int:
    if s.endswith(".."):
        return len(s) - len(s.rstrip("."))
    if s.endswith("."):
        if len(s) < 2 or (len(s) == 2 and _lower(s[0])):
            return 0
        if len(s) > 3 and len(s) % 2 == 0 and all(map(_letter, s[::2])) and set(s[1::2]) == {"."}:
            return 0
        if _lower(s[-2]) or _digit(s[-2]) or _peels(s[-2]) or s[-2] in QUOTES or s[-2] in "%+-":
            return 1
        if _counts(s[-2]) and not _upper(s[-2]):  # letters without case, and marks on them
            return 1
        return int(len(s) > 2 and _upper(s[-2]) and _upper(s[-3]))
    if _peels(s[-1]):
        return 1
    if len(s) > 1 and _digit(s[-2]) and (s[-1] in "%+" or unicodedata.category(s[-1]) == "Sc"):
        return 1
    for pattern, least in ((r"['’][sSdDmM]$", 3), (r"[nN]['’][tT]$", 4), (r"['’]([lL][lL]|[rRvV][eE])$", 4)):
        found = re.search(pattern, s)
        if found and len(s) >= least:
            return len(found.group())
    return 0


def _infix(s: str, i: int) -> int:
    if s.startswith("..", i):
        return len(s[i:]) - len(s[i:].lstrip("."))
    if s[i] == "…" or _icon(s[i]):
        return 1
    if i == 0 or i + 1 >= len(s):
        return 0
    c, before, after = s[i], s[i - 1], s[i + 1]
    if c == ".":
        return int((_lower(before) or before in QUOTES) and (_upper(after) or after in QUOTES))
    if c == ",":
        return int(_letter(before) and _letter(after))
    if c in ":<>=/":
        return int((_letter(before) or _digit(before)) and _letter(after))
    if c in "-–—~" and _letter(before):
        run = re.match(re.escape(c) + "{1,3}", s[i:])
        assert run
        j = i + len(run.group())
        if j < len(s) and _letter(s[j]):
            return j - i
    if c in "-+*^":
        return int(_digit(before) and (_digit(after) or after == "-"))
    return 0


def _pieces(word: str) -> list[str]:
    out, first, size, letters = [], 0, 0, 0
    for i, c in enumerate(word):
        if not _letter(c):
            continue
        now = _script(c)
        if i > first and (now != size or (now and letters == now)):
            out.append(word[first:i])
            first = i
        if i == first or now != size:
            letters = 0
        size, letters = now, letters + 1
    return [*out, word[first:]]


def reference_words(text: str) -> list[str]:
    out: list[str] = []
    for chunk in re.split(r"[\s\x1c-\x1f\x85]+", text):
        s, tail = chunk, []
        while s and not _address(s):
            before = len(s)
            if _opens(s[0]) and not (s[0] == "+" and len(s) > 1 and _digit(s[1])):
                out.append(s[0])
                s = s[1:]
            elif s.startswith(".."):
                dots = len(s) - len(s.lstrip("."))
                out.append(s[:dots])
                s = s[dots:]
            if s and (off := _closing(s)):
                tail.append(s[len(s) - off :])
                s = s[: len(s) - off]
            if len(s) == before:
                break
        if s and _address(s):
            out += _pieces(s)
        elif s:
            first = i = 0
            while i < len(s):
                if size := _infix(s, i):
                    out += _pieces(s[first:i]) if i > first else []
                    out.append(s[i : i + size])
                    i += size
                    first = i
                else:
                    i += 1
            out += _pieces(s[first:]) if first < len(s) else []
        out += reversed(tail)
    return out


def _duplicates(parts: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    number = characters = 0
    for part in parts:
        if part in seen:
            number += 1
            characters += len(part)
        seen.add(part)
    return number, characters


def _sentences(line: str) -> int:
    total, ended = 1, False
    for word in reference_words(line):
        if len(word) == 1 and _terminal(word):
            ended = True
        elif ended and not all(unicodedata.category(c)[0] == "P" for c in word):
            total, ended = total + 1, False
    return total


def _unspaced(c: str) -> bool:
    return _letter(c) and _script(c) > 0


def line_words(line: str) -> float:
    """Words of a line by C4's rule: between white space, or estimated where it has letters of unspaced scripts."""
    quarters = sum(2 if _script(c) == 2 else 1 for c in line if _unspaced(c))
    others = "".join("a" if (_letter(c) and not _unspaced(c)) or _digit(c) else " " for c in line)
    return max(len(line.split()), (quarters / 4 + len(others.split())) if quarters else 0)


def longest_word(line: str) -> int:
    return max(map(len, "".join(" " if _unspaced(c) else c for c in line).split()), default=0)


POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


def _ascii_lower(s: str) -> str:
    return re.sub("[A-Z]+", lambda m: m.group().lower(), s)


def reference(text: str, any_end: bool = False) -> dict[str, float]:
    words = reference_words(text)
    good = [w for w in words if any(map(_counts, w))]
    n = len(text)

    def share(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    lines = text.splitlines()
    out: dict[str, float] = {
        "characters": n,
        "words": len(good),
        "mean_word_length": share(sum(map(len, good)), len(good)),
        "hash_ratio": share(text.count("#"), len(words)),
        "ellipsis_ratio": share(text.count("...") + text.count("…"), len(words)),
        "bullet_lines": share(sum(s.lstrip().startswith(("-", "•")) for s in lines), len(lines)),
        "ellipsis_lines": share(sum(s.rstrip().endswith(("...", "…")) for s in lines), len(lines)),
        "alpha_words": share(sum(any(map(_letter, w)) for w in words), len(words)),
        "stop_words": len({"the", "be", "to", "of", "and", "that", "have", "with"} & set(words)),
    }
    for name, parts in (
        ("line", [s for s in text.split("\n") if s]),
        ("para", [s for s in re.split(r"\n{2,}", text.strip()) if s]),
    ):
        number, characters = _duplicates(parts)
        out[f"dup_{name}_frac"] = share(number, len(parts))
        out[f"dup_{name}_char_frac"] = share(characters, n)
    for size in (2, 3, 4):
        grams = [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]
        top = Counter(grams).most_common(1)
        out[f"top_{size}gram"] = len(top[0][0]) * top[0][1] / n if top else 0.0
    for size in range(5, 11):
        seen: set[tuple[str, ...]] = set()
        characters = i = 0
        while i < len(words) - size + 1:
            gram = tuple(words[i : i + size])
            if gram in seen:
                characters += len("".join(gram))
                i += size
            else:
                seen.add(gram)
                i += 1
        out[f"dup_{size}gram"] = share(characters, n)
    out |= dict.fromkeys(("sentences", "terminal_lines", "javascript_lines", "policy_lines"), 0)
    out |= {"lorem_ipsum": False, "curly_bracket": False}
    stripped = [s.strip() for s in lines if s.strip()]
    for s in stripped:
        if longest_word(s) > 1000:
            continue
        bare = re.sub(r"(\[[0-9]*\]|\[edit\]|\[citation needed\])+$", "", s, flags=re.IGNORECASE)
        ends_well = bare.endswith((".", "?", "!", '"', "'")) and not bare.endswith("...")
        out["terminal_lines"] += ends_well
        if not ends_well and not any_end:
            continue
        low = _ascii_lower(s)
        if line_words(s) < 3:
            continue
        out["lorem_ipsum"] |= "lorem ipsum" in low
        if "javascript" in low:
            out["javascript_lines"] += 1
            continue
        out["curly_bracket"] |= "{" in FORMULA.sub("", s)
        if any(p in low for p in POLICIES):
            out["policy_lines"] += 1
            continue
        out["sentences"] += _sentences(s)
    out["terminal_lines"] = share(out["terminal_lines"], len(stripped))
    filled = [s for s in text.split("\n") if s.strip()]
    out["punct_line_ratio"] = share(sum(_terminal(s[-1]) for s in filled), len(filled))
    out["short_line_ratio"] = share(sum(len(s) <= 30 for s in filled), len(filled))
    out["dup_char_ratio"] = share(_duplicates(filled)[1], n - text.count("\n"))
    out["newline_ratio"] = share(text.count("\n"), len(words))
    return out


ALL = ("gopher", "c4", "fineweb")


def measure(texts: list[str | None], sets: tuple[str, ...] = ALL, c4_terminal: bool = True) -> list[dict[str, float]]:
    step = Heuristics(sets=list(sets), c4_terminal=c4_terminal)  # type: ignore[arg-type]
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    out = step(batch)
    assert out.schema.field("heuristics").type == pa.struct(list(step.signals))
    return out.column("heuristics").to_pylist()  # type: ignore[no-any-return]


PARTS = [
    *("the", "of", "that", "Don't", "we'll", "word", "A.", "U.S.", "e.g.", "x", "state-of-the-art", "and/or", "3.14"),
    *(" ", " ", " ", "\n", "\n", "\n\n", "\t", "\r\n", "\u2028", "\x0b", "\x1c", "\xa0", "\u3000"),
    *("https://docs.python.org/3/x.html", "a@b.example", "my-file.txt", "10-20", "100%", "5€", "$5", "+1", "C++"),
    *("...", "…", "#", "- ", "• ", "—", "--", "(", ")", "[1]", "[edit]", "{", "}", '"', "’s", "!", "?", "。", "．"),
    *(
        "日本語",
        "の",
        "カタカナ",
        "テスト",
        "漢字かな",
        "ไทยภาษา",
        "မြန်မာ",
        "한국어",
        "العربية",
        "é",
        "e\u0301",
        "👩\u200d💻",
    ),
    *("lorem ipsum", "Lorem Ipsum", "JavaScript", "privacy policy", "uses cookies", "i\u0307", "ſ", "K", "x" * 1001),
]


texts_ = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=60).map("".join),
    st.lists(st.sampled_from(PARTS), max_size=60).map(" ".join),
    st.text(max_size=200),
).map(clean_text)
