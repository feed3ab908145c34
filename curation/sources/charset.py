"""Decodes bytes to text: finds the charset of a page from its byte order mark, its declarations and its bytes.

A page can declare its charset in an HTTP header and in a meta tag, and both can be wrong. The order here: a byte order
mark is trusted. Valid UTF-8 is UTF-8, whatever a single-byte label says, because text in those charsets is almost never
valid UTF-8 by accident. Then the declared charset, header before meta, if the bytes decode under it; but a header that
says latin1 is often a server's default (Apache's AddDefaultCharset), so it yields to the page's meta tag and to bytes
that contradict it. Then what
resiliparse's detector (Mozilla's chardet method) finds. Labels have the meaning that the WHATWG Encoding Standard gives
them (latin1 is windows-1252, gb2312 is gb18030, ...).
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be"))
_META = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*(?:[\"']\s*)?([A-Za-z0-9_:.\-]+)", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,256}?encoding\s*=\s*[\"']([A-Za-z0-9_:.\-]+)", re.I)
_PRESCAN_BYTES = 4096  # browsers look at 1024 bytes; pages in crawls have longer heads
_DETECT_BYTES = 1 << 16  # bytes given to the detector; its result does not change after the first tens of kilobytes
# Runs of three bytes above ASCII: in 12 languages that latin1 writes at most 0.002 of such bytes are in one, in text of
# Cyrillic, Greek, Hebrew, Arabic and Thai charsets and of multibyte ones 0.90 and more (150 sentences a language)
_LONG_RUN = re.compile(rb"[\x80-\xff]{3,}")
_MAX_IN_LONG_RUNS = 0.4
_C1_IN_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # bytes that windows-1252 has no character for
_MAX_UNDECODABLE = 0.01  # share of undecodable characters above which a declared charset is ignored

# Canonical name -> (Python codec, further labels), from https://encoding.spec.whatwg.org/#names-and-labels, with labels
# seen in the wild. Python's windows-125x reject bytes that the standard maps to C1 controls; see _decode_as.
_CHARSETS: dict[str, tuple[str, str]] = {
    "utf-8": ("utf-8", "utf8 unicode-1-1-utf-8 unicode11utf8 x-unicode20utf8 utf-8-sig utf_8 utf8mb4"),
    "utf-16le": ("utf-16-le", "utf-16 ucs-2 unicode iso-10646-ucs-2 csunicode unicodefeff"),
    "utf-16be": ("utf-16-be", "unicodefffe"),
    "windows-1252": (
        "cp1252",
        "ascii us-ascii latin1 latin-1 iso-8859-1 iso8859-1 iso_8859-1 iso88591 l1 x-cp1252 cp1252 cp819 "
        "ansi_x3.4-1968 ibm819 csisolatin1 windows1252 ansi",
    ),
    "windows-1250": ("cp1250", "cp1250 x-cp1250 win-1250"),
    "windows-1251": ("cp1251", "cp1251 x-cp1251 win-1251 windows1251"),
    "windows-1253": ("cp1253", "cp1253 x-cp1253"),
    "windows-1254": ("cp1254", "cp1254 x-cp1254 iso-8859-9 iso8859-9 latin5 l5 iso_8859-9"),
    "windows-1255": ("cp1255", "cp1255 x-cp1255"),
    "windows-1256": ("cp1256", "cp1256 x-cp1256"),
    "windows-1257": ("cp1257", "cp1257 x-cp1257"),
    "windows-1258": ("cp1258", "cp1258 x-cp1258"),
    "windows-874": ("cp874", "cp874 dos-874 iso-8859-11 iso8859-11 tis-620 tis620"),
    "iso-8859-2": ("iso8859-2", "iso8859-2 latin2 l2 iso_8859-2 iso88592 csisolatin2"),
    "iso-8859-3": ("iso8859-3", "iso8859-3 latin3 l3"),
    "iso-8859-4": ("iso8859-4", "iso8859-4 latin4 l4"),
    "iso-8859-5": ("iso8859-5", "iso8859-5 cyrillic iso_8859-5"),
    "iso-8859-6": ("iso8859-6", "iso8859-6 arabic asmo-708 ecma-114 iso-8859-6-e iso-8859-6-i"),
    "iso-8859-7": ("iso8859-7", "iso8859-7 greek greek8 sun_eu_greek elot_928 ecma-118"),
    "iso-8859-8": ("iso8859-8", "iso8859-8 hebrew visual iso-8859-8-e iso-8859-8-i logical"),
    "iso-8859-10": ("iso8859-10", "iso8859-10 latin6 l6"),
    "iso-8859-13": ("iso8859-13", "iso8859-13"),
    "iso-8859-14": ("iso8859-14", "iso8859-14"),
    "iso-8859-15": ("iso8859-15", "iso8859-15 latin9 l9 iso_8859-15"),
    "iso-8859-16": ("iso8859-16", "iso8859-16"),
    "koi8-r": ("koi8-r", "koi8 koi koi8_r cskoi8r"),
    "koi8-u": ("koi8-u", "koi8-ru"),
    "macintosh": ("mac-roman", "mac x-mac-roman csmacintosh"),
    "x-mac-cyrillic": ("mac-cyrillic", "x-mac-ukrainian maccyrillic"),
    "ibm866": ("cp866", "866 cp866 csibm866"),
    "gb18030": ("gb18030", "gbk gb2312 gb_2312 gb_2312-80 chinese x-gbk cp936 euc-cn csgb2312 iso-ir-58 gb2312-80"),
    "hz-gb-2312": ("hz", "hz"),
    "big5": ("big5hkscs", "big5-hkscs big-5 cn-big5 x-x-big5 csbig5 big5-eten cp950"),
    "euc-jp": ("euc_jis_2004", "x-euc-jp x-euc eucjp cseucpkdfmtjapanese"),
    "shift_jis": ("cp932", "shift-jis sjis x-sjis ms_kanji windows-31j ms932 cp932 shiftjis csshiftjis"),
    "iso-2022-jp": ("iso2022_jp_2", "csiso2022jp"),
    "euc-kr": (
        "cp949",
        "euckr korean ks_c_5601-1987 ksc5601 ks_c_5601-1989 ksc_5601 windows-949 cp949 uhc x-windows-949",
    ),
    "iso-2022-kr": ("iso2022_kr", "csiso2022kr"),
}
_LABELS = {label: name for name, (_, more) in _CHARSETS.items() for label in (name, *more.split())}
_MULTIBYTE = frozenset(
    (
        "utf-16le",
        "utf-16be",
        "gb18030",
        "hz-gb-2312",
        "big5",
        "euc-jp",
        "shift_jis",
        "iso-2022-jp",
        "euc-kr",
        "iso-2022-kr",
    )
)
_ESCAPE_MARKERS = {
    "iso-2022-jp": b"\x1b",
    "iso-2022-kr": b"\x0e",
    "hz-gb-2312": b"~{",
}  # seven-bit charsets: plain ASCII without it


def _decode_c1_control(error: UnicodeError) -> tuple[str, int]:
    """Decodes a byte that a single-byte charset leaves undefined as the C1 control of that number, as the standard
    does."""
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(b) if 0x80 <= b <= 0x9F else "\ufffd" for b in error.object[error.start : error.end]), error.end


codecs.register_error("gristmill-c1", _decode_c1_control)


@dataclass(frozen=True)
class Decoded:
    """Text, its charset (WHATWG name), and what decided it: bom, utf-8, header, meta or content."""

    text: str
    charset: str
    decided_by: str


def canonical_name(label: str | None) -> str | None:
    """The WHATWG name of a charset label; None for a label that the standard does not know (`utf-7`, `none`, typos)."""
    if not label:
        return None
    key = label.strip().strip("\"'").lower()
    return _LABELS.get(key) or _LABELS.get(key.replace("_", "-"))


def decode(data: bytes, header: str | None = None, *, html: bool = True) -> Decoded:
    """Decodes a payload. `header` is the charset of the HTTP header, if any; `html`: whether meta tags count.

    Never raises: bytes that cannot be decoded become U+FFFD.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            return Decoded(_decode_as(data[len(bom) :], name), name, "bom")
    declared = [(canonical_name(header), "header")]
    if html:
        declared.append((_declared_in_markup(data), "meta"))
    labels = [(name, by) for name, by in declared if name]
    if labels[:1] == [("windows-1252", "header")]:
        meta = [label for label in labels[1:] if label[0] != "windows-1252"]
        labels = meta + labels if meta or not _contradicts_latin1(data) else labels[1:]
    first = labels[0][0] if labels else None
    escaped = [label for label in labels if label[0] in _ESCAPE_MARKERS and _ESCAPE_MARKERS[label[0]] in data]
    if wide := _detect_utf16(data):
        return Decoded(_decode_as(data, wide), wide, "content")
    if first not in _MULTIBYTE and not escaped:
        text = _decode_utf8(data)
        if text is not None:  # ASCII is UTF-8 too, whatever is declared
            return Decoded(text, "utf-8", "utf-8" if first != "utf-8" else labels[0][1])
    for name, by in escaped or labels:
        if name in _ESCAPE_MARKERS and _ESCAPE_MARKERS[name] not in data:
            continue  # a seven-bit charset without its escape: plain ASCII, or wrongly labelled
        if by == "meta" and name.startswith("utf-16"):
            continue  # a meta tag that could be read as ASCII is not in UTF-16
        text = _decode_as(data, name)
        if text.count("\ufffd") <= _MAX_UNDECODABLE * len(text):
            return Decoded(text, name, by)
    text = _decode_utf8(data)
    if text is not None:
        return Decoded(text, "utf-8", "utf-8")
    name = _detect(data)
    return Decoded(_decode_as(data, name), name, "content")


def _contradicts_latin1(data: bytes) -> bool:
    """Whether bytes are hardly latin1: controls that no text has, or words without a letter of ASCII."""
    high = len(data) - len(data.translate(None, bytes(range(0x80, 0x100))))
    long_runs = sum(map(len, _LONG_RUN.findall(data)))
    return long_runs > _MAX_IN_LONG_RUNS * high or len(_C1_IN_1252.findall(data)) > _MAX_UNDECODABLE * high


def _declared_in_markup(data: bytes) -> str | None:
    head = data[:_PRESCAN_BYTES]
    for pattern in (_XML, _META):
        for match in pattern.finditer(head):
            if name := canonical_name(match.group(1).decode("ascii")):
                return name
    return None


def _decode_utf8(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _decode_as(data: bytes, name: str) -> str:
    codec = _CHARSETS[name][0]
    if name in _MULTIBYTE or name == "utf-8":
        return data.decode(codec, "replace")
    return data.decode(codec, "gristmill-c1")


def _detect_utf16(data: bytes) -> str | None:
    """Detects UTF-16 without a byte order mark by its zeros: every other byte of Latin text is one."""
    head = data[:4096]
    if head.count(0) <= 0.2 * len(head):
        return None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if min(even, odd) * 4 > max(even, odd):
        return None
    return "utf-16le" if odd > even else "utf-16be"


def _detect(data: bytes) -> str:
    """The charset that the bytes look like. UTF-8 with a few errors is recognized by how few they are."""
    text = data.decode("utf-8", "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    if beyond and text.count("\ufffd") <= 0.1 * beyond:
        return "utf-8"
    from resiliparse.parse.encoding import detect_encoding

    start = next((i for i, b in enumerate(data) if b >= 0x80), 0)  # the first byte that is not ASCII
    start = max(0, start - 1024)
    found = canonical_name(detect_encoding(data[start : start + _DETECT_BYTES], html5_compatible=False))
    return found if found and found != "utf-8" else "windows-1252"
