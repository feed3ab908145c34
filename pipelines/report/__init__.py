"""`gristmill report`: one HTML file about a run, of curation or of training, that opens anywhere, with no network and
nothing crawled that can run.

`page` is the frame; each other file is one part of a page. What a part says comes from `pipelines.report.curation.report_data` (a curation
run) or `pipelines.report.training.training_run` (a training run).
"""

from __future__ import annotations

import os

from curation.storage import Storage, is_remote


def write(run_dir: str, out: str | None = None, price: float | None = None) -> str:
    """Writes the report of a run and returns its path: RUN/report.html, or `out`. `price`: of a core-hour.

    Raises UserError for a directory without a finished curation run, and without a training.
    """
    from pipelines.report.curation import page as curation
    from pipelines.report.curation import report_data
    from pipelines.report.training import page as training
    from pipelines.report.training import training_run

    if (
        not is_remote(run_dir)
        and not os.path.exists(os.path.join(run_dir, "run.json"))
        and training_run.is_training(run_dir)
    ):
        page = training.render(training_run.read(run_dir))
    else:
        page = curation.render(report_data.gather(run_dir), price)
    if out is None and is_remote(run_dir):
        Storage(run_dir).write_bytes("report.html", page.encode("utf-8", "replace"))
        return f"{run_dir.rstrip('/')}/report.html"
    return save(page, out or os.path.join(run_dir, "report.html"))


def save(page: str, out: str) -> str:
    """Writes a page to a file and returns its path."""
    path = os.path.abspath(out)
    Storage(os.path.dirname(path)).write_bytes(os.path.basename(path), page.encode("utf-8", "replace"))
    return path
