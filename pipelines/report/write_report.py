"""Writes the HTML report of a curation run or a training run (`gristmill report`).

The report is one file that opens anywhere: it loads nothing from the network, and no crawled text in it can run as code
(html/page.py). `curation/` holds the parts of a curation run's page, `training/` those of a training run's.
"""

from __future__ import annotations

import os

from curation.storage import Storage, is_remote
from pipelines.lookup import training_run
from pipelines.report.curation import page as curation_page
from pipelines.report.curation import report_data
from pipelines.report.training import page as training_page


def write_report(run_dir: str, out: str | None = None, price: float | None = None) -> str:
    """Writes the report of a run and returns its path: RUN/report.html, or `out`. `price`: of a core-hour.

    Raises UserError for a directory that holds neither a finished curation run nor a training run.
    """
    curated = is_remote(run_dir) or os.path.exists(os.path.join(run_dir, "run.json"))
    if not curated and training_run.is_training(run_dir):
        page = training_page.render(training_run.read(run_dir))
    else:
        page = curation_page.render(report_data.gather(run_dir), price)
    if out is None and is_remote(run_dir):
        Storage(run_dir).write_bytes("report.html", page.encode("utf-8", "replace"))
        return f"{run_dir.rstrip('/')}/report.html"
    return save_page(page, out or os.path.join(run_dir, "report.html"))


def save_page(page: str, out: str) -> str:
    """Writes a page to a file and returns its absolute path."""
    path = os.path.abspath(out)
    Storage(os.path.dirname(path)).write_bytes(os.path.basename(path), page.encode("utf-8", "replace"))
    return path
