"""The studies, by name."""

from autolr_lab.studies.coverage import COVERAGE
from autolr_lab.studies.fit_quality import FIT_QUALITY
from autolr_lab.studies.overhead import OVERHEAD
from autolr_lab.studies.rollback_rules import ROLLBACK_RULES
from autolr_lab.studies.same_verdicts import SAME_VERDICTS

STUDIES = {study.name: study for study in (COVERAGE, FIT_QUALITY, OVERHEAD, ROLLBACK_RULES, SAME_VERDICTS)}
