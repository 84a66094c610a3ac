"""The report of stored samples: one HTML page that needs no network, and its figures as files."""

from ropewalk.evaluate.report.write import Written, figures, write_report

__all__ = ["Written", "figures", "write_report"]
