"""Words of example texts, written down by hand."""

from __future__ import annotations

from tests.curation.quality.heuristics.reference import measure, reference_words


def test_words_as_written_down() -> None:
    text = "Don't (really) use my-file.txt, see https://docs.python.org/3: it's 100% state-of-the-art..."
    expected = ["Do", "n't", "(", "really", ")", "use", "my-file.txt", ",", "see", "https://docs.python.org/3:", "it"]
    expected += ["'s", "100", "%", "state", "-", "of", "-", "the", "-", "art", "..."]
    assert reference_words(text) == expected
    assert reference_words("漢字かなカナ漢字漢字") == ["漢字", "かな", "カナ", "漢字", "漢字"]
    (found,) = measure([text])
    assert found["words"] == sum(any(map(str.isalnum, w)) for w in expected)
