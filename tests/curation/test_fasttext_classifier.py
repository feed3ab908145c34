"""Predictions equal fastText's own Python wrapper; labels become names that SQL accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.fasttext_classifier import LABEL_PREFIX, predict_labels, signal_name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import fasttext

    path: Path = tmp_path_factory.mktemp("model") / "train.txt"
    path.write_text("".join(f"__label__b-c kind word {i}\n__label__a evil wörd {i}\n" for i in range(50)))
    return fasttext.train_supervised(str(path), epoch=20, dim=8, bucket=0, thread=10, verbose=0)


@pytest.mark.parametrize("k", [1, 2, -1])
def test_predictions_equal_fasttexts_wrapper(model: Any, k: int) -> None:
    lines = ["kind word", "evil wörd 3", "", "unseen", "\u3000 evil\tkind"]
    found = predict_labels(model, [line.encode() for line in lines], k)
    expected = zip(*model.predict(lines, k=k), strict=True)  # of one line numpy 2 refuses what the wrapper does
    for labels, (names, values) in zip(found, expected, strict=True):
        assert [LABEL_PREFIX + name for name, _ in labels] == list(names)
        assert [value for _, value in labels] == [min(float(v), 1.0) for v in values]
    assert predict_labels(model, []) == []


def test_signal_names() -> None:
    assert [signal_name(label) for label in ("cc-low", "a_1", "é.x")] == ["cc_low", "a_1", "__x"]
