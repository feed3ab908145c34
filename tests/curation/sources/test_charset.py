"""Charsets: nothing is lost, whoever names it and whoever does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.sources import charset

# A sentence or two in each; what the charset can write comes back unchanged.
SAMPLES = {
    "utf-8": ("utf-8", "Zażółć gęślą jaźń – 日本語 – עברית"),
    "utf-16le": ("utf-16-le", "Text in two bytes a character, ünd mehr"),
    "windows-1252": ("cp1252", "“Smart quotes” – naïve façade, 20 €, Übergröße"),
    "windows-1250": ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy"),
    "windows-1251": ("cp1251", "Съешь же ещё этих мягких французских булок, да выпей чаю"),
    "windows-1253": ("cp1253", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία"),
    "windows-1254": ("cp1254", "Pijamalı hasta yağız şoföre çabucak güvendi"),
    "windows-1255": ("cp1255", "דג סקרן שט בים מאוכזב ולפתע מצא חברה"),
    "windows-1256": ("cp1256", "نص حكيم له سر قاطع وذو شأن عظيم"),
    "windows-1257": ("cp1257", "Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė"),
    "windows-874": ("cp874", "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า"),
    "iso-8859-2": ("iso8859-2", "Árvíztűrő tükörfúrógép, Pchnąć w tę łódź"),
    "iso-8859-5": ("iso8859-5", "Широкая электрификация южных губерний"),
    "iso-8859-7": (
        "iso8859-7",
        "Γαζίες καὶ μυρτιὲς δὲν θὰ βρῶ πιά".replace("ὶ", "ί").replace("ὲ", "έ").replace("ὰ", "ά").replace("ῶ", "ώ"),
    ),
    "iso-8859-15": ("iso8859-15", "Œuvre à 10 €, Šárka"),
    "koi8-r": ("koi8-r", "Чушь: гид вёз кэб цапф, юный жмот съел хрящ"),
    "koi8-u": ("koi8-u", "Жебракують філософи при ґанку церкви в Гадячі"),
    "ibm866": ("cp866", "Любя, съешь щипцы, вздохнёт мэр, кайф жгуч"),
    "macintosh": ("mac-roman", "Voix ambiguë d’un cœur qui préfère les jattes de kiwis"),
    "gb18030": ("gb18030", "视野无限广，窗外有蓝天。微风迎客，软语伴茶。"),
    "big5": ("big5hkscs", "視野無限廣，窗外有藍天。微風迎客，軟語伴茶。"),
    "euc-jp": ("euc_jp", "いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ"),
    "shift_jis": ("cp932", "色は匂へど散りぬるを①㈱ｱｲｳ"),
    "iso-2022-jp": ("iso2022_jp", "いろはにほへと ちりぬるを"),
    "euc-kr": ("cp949", "키스의 고유조건은 입술끼리 만나야 하고 똠방각하"),
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_declared(name: str) -> None:
    codec, sample = SAMPLES[name]
    data = sample.encode(codec)
    got = charset.decode(data, name)
    assert (got.text, got.charset) == (sample, name)
    if not name.startswith("utf-16"):
        page = f'<html><head><meta charset="{name}"><title>x</title></head><body>{sample}</body></html>'
        for header in (None, "utf-8", "nonsense"):
            got = charset.decode(page.encode(codec), header)
            assert (got.text, got.charset) == (page, name)
        page = f'<?xml version="1.0" encoding="{name}"?>\n<html>{sample}</html>'
        assert charset.decode(page.encode(codec)).text == page


@pytest.mark.parametrize(
    "name",
    [
        "utf-8",
        "windows-1251",
        "windows-1255",
        "windows-1256",
        "gb18030",
        "big5",
        "euc-jp",
        "shift_jis",
        "euc-kr",
        "koi8-r",
    ],
)
def test_undeclared(name: str) -> None:
    codec, sample = SAMPLES[name]
    text = "<html><body>" + (sample + " ") * 20 + "</body></html>"
    assert charset.decode(text.encode(codec)).text == text


def test_wrongly_declared() -> None:
    text = "Zażółć gęślą jaźń, mówi się – „cytat”"
    assert charset.decode(text.encode(), "iso-8859-1").text == text
    assert charset.decode(text.encode(), "shift_jis").text == text
    russian = "Съешь же ещё этих мягких французских булок " * 5
    assert charset.decode(russian.encode("cp1251"), "utf-8").text == russian


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_wins(codec: str) -> None:
    got = charset.decode("naïve 日本".encode(codec), "windows-1252")
    assert (got.text, got.decided_by) == ("naïve 日本", "bom")


def test_utf16_without_a_mark() -> None:
    for codec in ("utf-16-le", "utf-16-be"):
        assert charset.decode("plain words, no mark at all".encode(codec)).text == "plain words, no mark at all"


def test_ascii_is_utf8() -> None:
    assert charset.decode(b"plain", "windows-1252").charset == "utf-8"
    assert charset.decode(b"plain", "iso-2022-jp").charset == "utf-8"


def test_open_bytes_are_controls() -> None:
    assert charset.decode(b"caf\xe9 \x81\x8d", "latin1").text == "café \x81\x8d"


@pytest.mark.parametrize(
    ("label", "name"),
    [("Latin1", "windows-1252"), ("GB2312", "gb18030"), (" utf8 ", "utf-8"), ("x-sjis", "shift_jis"),
     ("'TIS-620'", "windows-874"),
     ("ks_c_5601-1987", "euc-kr"), ("utf-7", None), ("", None), (None, None), ("none", None)],
)  # fmt: skip
def test_labels(label: str | None, name: str | None) -> None:
    assert charset.canonical_name(label) == name


@given(st.binary(max_size=300), st.sampled_from([None, *sorted(SAMPLES), "junk"]))
def test_any_bytes(data: bytes, header: str | None) -> None:
    got = charset.decode(data, header)
    assert got == charset.decode(data, header)
    got.text.encode("utf-8", "surrogatepass")


_DEFAULT_HEADER = {  # charset of the bytes -> text, in sentences as long as a page has
    "windows-1251": "Мельница на реке была восстановлена весной после наводнения, и новое колесо повернулось утром.",
    "koi8-r": "Мельница на реке была восстановлена весной после наводнения, и новое колесо повернулось утром.",
    "shift_jis": "水車小屋は洪水のあと春に建て直された。新しい水車が初めて回った朝は寒かった。村の人が見に来た。",
    "gb18030": "磨坊在春天洪水之后重建，新的水车在一个寒冷的早晨第一次转动，村里大多数人都来观看。",
    "euc-kr": "물레방아는 홍수가 지나간 봄에 다시 지어졌고, 새 바퀴는 추운 아침에 처음으로 돌았다.",
    "windows-1253": "Ο μύλος ξαναχτίστηκε την άνοιξη μετά την πλημμύρα και ο νέος τροχός γύρισε το πρωί.",
}


@pytest.mark.parametrize("name", sorted(_DEFAULT_HEADER))
@pytest.mark.parametrize("declares", [True, False])
def test_a_default_latin1_header_yields_to_the_page(name: str, declares: bool) -> None:
    """Servers write ISO-8859-1 into the header of every page (AddDefaultCharset)."""
    meta = f'<meta charset="{name}">' if declares else ""
    page = f"<html><head>{meta}</head><body><p>{_DEFAULT_HEADER[name] * 3}</p></body></html>"
    got = charset.decode(page.encode(charset._CHARSETS[name][0]), "ISO-8859-1")
    assert got.text == page and got.decided_by == ("meta" if declares else "content")


@pytest.mark.parametrize(
    "text",
    ["Die Mühle am Fluß wurde im Frühling für alle geöffnet, größer als je.", "Årets øl på Ærø: sådan gør de på øen, "
     "når båden går.", "“Smart quotes” – naïve façade, 20 €", "ÉTÉ À LA FORÊT: ÇA, C'ÉTAIT L'ÉTÉ.", "ASCII"],
)  # fmt: skip
def test_a_latin1_header_holds_where_the_bytes_agree(text: str) -> None:
    data = f"<html><body>{text}</body></html>".encode("cp1252")
    assert charset.decode(data, "ISO-8859-1").text == data.decode("cp1252")
