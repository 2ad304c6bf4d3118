"""The report of a run: report.html, and a table of text for its end."""

from evr1.report.files import Metrics, read_metrics
from evr1.report.numbers import accuracy_table
from evr1.report.page import build

__all__ = ["Metrics", "accuracy_table", "build", "read_metrics"]
