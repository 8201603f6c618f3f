"""The report: what runs did, what they cost and why, as pictures and one page of HTML."""

from autolr.report.page import write_report

__all__ = ["write_report"]
