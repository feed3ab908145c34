"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("counted", deadline=None)  # by default an example may take 200 ms
hypothesis.settings.load_profile("counted")

# Seconds after which a test gives up on a process that it started: only a hang takes so long, also on a busy machine.
# Below the limit of pytest itself (pyproject.toml), so that the process is ended and its output shown.
HANG = 1500

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: of what is left to several workers at the end, the pieces should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real test data beside the checkout (or GRISTMILL_TEST_DATA); a test that needs it skips without."""
    folder = Path(os.environ.get("GRISTMILL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real test data is not at {folder}; set GRISTMILL_TEST_DATA to run this test")
    return folder
