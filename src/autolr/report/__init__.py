"""The report: what AutoLR did in one or several trainings, why and at what cost, as pictures and one page of HTML.

Names are imported when they are first used: `autolr.AutoLR.summary` needs nothing of what draws.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autolr.report.page import write_page
    from autolr.report.reading import ReportError, read_trainings
    from autolr.report.training_record import Training

__all__ = ["ReportError", "Training", "read_trainings", "write_page"]

_FILES = {"ReportError": "reading", "Training": "training_record", "read_trainings": "reading", "write_page": "page"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _FILES:
            raise AttributeError(f"module 'autolr.report' has no attribute {name!r}")
        return getattr(importlib.import_module(f"autolr.report.{_FILES[name]}"), name)
