"""The report: what AutoLR did in one or several trainings, why and at what cost, as pictures and one page of HTML."""

from autolr.report.page import write_report
from autolr.report.reading import ReportError, read_trainings
from autolr.report.training_record import Training

__all__ = ["ReportError", "Training", "read_trainings", "write_report"]
