"""``python -m autolr.cli`` is ``autolr``."""

from autolr.cli import main

main()
