"""Scaling laws: fitted to tables of finished runs, with intervals, and tested on the largest of them."""

from pipelines.scaling.fitted import Backtest, Fit, backtest, fit
from pipelines.scaling.table import Table, read

__all__ = ["Backtest", "Fit", "Table", "backtest", "fit", "read"]
