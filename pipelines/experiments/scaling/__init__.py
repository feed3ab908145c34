"""Fits scaling laws to tables of finished runs, with intervals, and tests them on the largest runs."""

from pipelines.experiments.scaling.fitted_law import Backtest, Fit, backtest, fit
from pipelines.experiments.scaling.runs_table import Table, read

__all__ = ["Backtest", "Fit", "Table", "backtest", "fit", "read"]
