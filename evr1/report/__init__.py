"""The report of a run: report.html, and a table of text for its end."""

from evr1.report.files import Metrics, read_metrics
from evr1.report.numbers import accuracy_table
from evr1.report.page import Refreshed, build

__all__ = ["Metrics", "Refreshed", "accuracy_table", "build", "read_metrics"]
