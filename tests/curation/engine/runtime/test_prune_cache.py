"""`gristmill gc`: files that the newest result does not refer to go, and nothing that is needed again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curation.core.errors import UserError
from curation.engine.runtime.prune_cache import prune_cache
from curation.storage import Storage
from pipelines.cli.app import app
from pipelines.cli.commands import curate as _  # noqa: F401 - registers the command
from tests.curation.engine import tiny


def cache_bytes(run_dir: Path) -> int:
    return sum(p.stat().st_size for p in (run_dir / "cache").rglob("*") if p.is_file())


def test_what_earlier_rules_left_is_removed_and_all_else_stays(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", files=3)
    file, run_dir = tiny.write_pipeline(tmp_path), tmp_path / "run"
    tiny.run(file, run_dir)
    first, text = tiny.tree(run_dir), file.read_text()
    assert sum(s.removed_files for s in prune_cache(str(run_dir)).values()) == 0, "one result, and all of it is needed"

    file.write_text(text.replace("0.2)", "0.6)"))
    tiny.run(file, run_dir)
    second, before = tiny.tree(run_dir), cache_bytes(run_dir)
    dry = CliRunner().invoke(app, ["gc", str(run_dir), "--dry-run", "--json"])
    would = json.loads(dry.output)
    removed = sum(s["removed_bytes"] for s in would.values())
    assert dry.exit_code == 0 and cache_bytes(run_dir) == before and removed > 0
    assert {f for f, s in would.items() if s["removed_files"]} >= {"cache/decisions", "cache/phases", "cache/out"}
    shown = CliRunner().invoke(app, ["gc", str(run_dir)])
    print(shown.output)
    assert shown.exit_code == 0 and "cache/stages" in shown.output
    assert cache_bytes(run_dir) == before - removed and tiny.tree(run_dir) == second

    # the result can still be made from the cache alone
    store = Storage(str(run_dir))
    store.write_json("run.json", store.read_json("run.json") | {"done": None})
    with pytest.raises(UserError, match="not a finished run"):
        prune_cache(str(run_dir))
    assert tiny.run(file, run_dir).executed == 0 and tiny.tree(run_dir) == second
    # and the earlier one is made again where it is wanted
    file.write_text(text)
    assert tiny.run(file, run_dir).executed > 0 and tiny.tree(run_dir) == first


def test_a_later_run_finds_its_prior_run_after_gc(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in")
    file = tiny.write_pipeline(tmp_path)
    tiny.run(file, tmp_path / "first")
    text = file.read_text()
    file.write_text(text.replace("0.2)", "0.4)"))
    tiny.run(file, tmp_path / "first")
    tiny.write_input(tmp_path / "more", files=4)
    later = tmp_path / "later.yaml"
    changed = file.read_text().replace("exact_dedup: {}", f"exact_dedup: {{prior_run: {tmp_path}/first}}")
    later.write_text(changed.replace(f'"{tmp_path}/in"', f'"{tmp_path}/more"'))
    tiny.run(later, tmp_path / "expected")
    assert sum(s.removed_files for s in prune_cache(str(tmp_path / "first")).values()) > 0
    tiny.run(later, tmp_path / "second")
    assert tiny.tree(tmp_path / "second") == tiny.tree(tmp_path / "expected")
