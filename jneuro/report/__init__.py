"""The report of a run: scores beside baselines and noise ceiling, figures, and the configuration that made them."""

from jneuro.report.data import ReportData
from jneuro.report.html import write_report

__all__ = ["ReportData", "write_report"]
