"""Words of example texts, written down by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curation.quality.heuristics import word_kernels
from curation.quality.heuristics.character_classes import character_classes
from tests.curation.quality.heuristics.reference import measure, reference_words


def test_words_as_written_down() -> None:
    text = "Don't (really) use my-file.txt, see https://docs.python.org/3: it's 100% state-of-the-art..."
    expected = ["Do", "n't", "(", "really", ")", "use", "my-file.txt", ",", "see", "https://docs.python.org/3:", "it"]
    expected += ["'s", "100", "%", "state", "-", "of", "-", "the", "-", "art", "..."]
    assert reference_words(text) == expected
    assert reference_words("漢字かなカナ漢字漢字") == ["漢字", "かな", "カナ", "漢字", "漢字"]
    (found,) = measure([text])
    assert found["words"] == sum(any(map(str.isalnum, w)) for w in expected)


# fmt: off
SIX_SENTENCES = {
    "ko": "방앗간은 봄에 다시 지어졌다. 아침은 추웠다. 마을 사람들이 보러 왔다. 돌은 채석장에서 왔다. 일했다. 물길이 마른다.",  # noqa: E501
    "ar": "أعيد بناء الطاحونة. دارت العجلة في صباح بارد. جاء أهل القرية. جاءت الحجارة من بعيد. عمل البناؤون. يجف الماء.",  # noqa: E501
    "he": "הטחנה נבנתה מחדש. הגלגל הסתובב בבוקר קר. אנשי הכפר באו. האבנים באו ממחצבה. הבנאים עבדו. המים יבשים.",
    "fa": "آسیاب دوباره ساخته شد. چرخ تازه چرخید. مردم برای دیدن آمدند. سنگ ها از معدنی آمدند. بناها کار کردند. آب خشک می شود.",  # noqa: E501
    "ta": "ஆலை மீண்டும் கட்டப்பட்டது. சக்கரம் சுழன்றது. மக்கள் பார்க்க வந்தனர். கற்கள் வந்தன. தொழிலாளர்கள் உழைத்தனர். நீர் வற்றும்.",
    "ka": "წისქვილი აშენდა. ბორბალი დატრიალდა. ხალხი მოვიდა. ქვები ჩამოიტანეს. ოსტატები მუშაობდნენ. წყალი შრება.",
    "si": "මෝල නැවත ඉදි විය. රෝදය කැරකුණි. මිනිස්සු ආවෝය. ගල් ආවේය. ඔවුහු වැඩ කළහ. ජලය සිඳෙයි.",
    "th": "โรงสีถูกสร้างใหม่. ล้อหมุนอีกครั้ง. ชาวบ้านมาดู. หินมาจากที่ไกล. ช่างทำงานหนัก. น้ำแห้ง.",
    "hi": "चक्की फिर बनी. पहिया घूमा. लोग देखने आए. पत्थर दूर से आए. कारीगरों ने काम किया. पानी सूख गया.",
    "ru": "Мельницу отстроили. Колесо повернулось. Жители пришли. Камни привезли. Каменщики работали. Вода высыхает.",
    "en": "The mill was rebuilt. The wheel turned. The village came. The stones came from afar. They worked. It runs dry.",  # noqa: E501
}
# fmt: on


def test_a_full_stop_ends_a_sentence_in_every_script() -> None:
    found = measure(list(SIX_SENTENCES.values()))
    assert dict(zip(SIX_SENTENCES, [row["sentences"] for row in found], strict=True)) == dict.fromkeys(SIX_SENTENCES, 6)


class Counted:
    """An array that counts how often a place of it is read."""

    def __init__(self, values: Any) -> None:
        self.values, self.reads = values, 0

    def __getitem__(self, i: int) -> Any:
        self.reads += 1
        return self.values[i]


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("a.b", "]", ""), ("", "(", "a.bc)"), ("a.bc", "].", ""), ("http://a.b", "]", ""), ("", "[", "a.b.c."),
        ("a.b", "@]", ""), ("", "a.", "b]"), ("a.b", "?", ""), ("a.bc", "...]", ""), ("", "'s", "a.b"),
    ],
)  # fmt: skip
def test_characters_are_read_a_limited_number_of_times(
    before: str, repeated: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel as plain Python: compiled code makes no calls that could be counted."""
    for name in ("is_url_or_host", "append_word", "suffix_length", "infix_length", "script_word_length"):
        monkeypatch.setattr(word_kernels, name, getattr(word_kernels, name).py_func)
    monkeypatch.setattr(word_kernels, "MAX_TRIES", 8)
    reads = []
    for times in (100, 200, 400):
        text = before + repeated * times + after
        code = np.array([ord(c) for c in text], np.int32)
        flags = Counted(character_classes()[code])
        counted = Counted(code)
        start, end, ends = (np.zeros(len(text) + 1, np.int32) for _ in range(3))
        word_kernels.split_words.py_func(counted, flags, len(text), start, end, ends, False)
        reads.append(counted.reads + flags.reads)
    assert reads[2] - reads[1] < 2.5 * (reads[1] - reads[0])
