"""The studies, by name."""

from autolr_lab.studies.coverage import COVERAGE
from autolr_lab.studies.deepobs.study import DEEPOBS
from autolr_lab.studies.fit_quality import FIT_QUALITY
from autolr_lab.studies.length_law import LENGTH_LAW
from autolr_lab.studies.optimizers.study import OPTIMIZERS
from autolr_lab.studies.rollback_rules import ROLLBACK_RULES
from autolr_lab.studies.run_book import RUN_BOOK
from autolr_lab.studies.side_by_side import SIDE_BY_SIDE

_ALL = (COVERAGE, DEEPOBS, FIT_QUALITY, LENGTH_LAW, OPTIMIZERS, ROLLBACK_RULES, RUN_BOOK, SIDE_BY_SIDE)
STUDIES = {study.name: study for study in _ALL}
