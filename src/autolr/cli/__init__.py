"""The command line, ``autolr``: it needs the extra ``[cli]``, and torch only where a command does."""

from __future__ import annotations

import sys

EXTRA = {"typer", "rich"}  # typer brings rich


def main() -> None:
    """Run it, or say what to install."""
    try:
        from autolr.cli.app import app
    except ModuleNotFoundError as error:
        if (missing := (error.name or "").partition(".")[0]) not in EXTRA:
            raise
        sys.exit(f"The autolr command needs {missing}, which is not installed: pip install 'torch-autolr[cli]'")
    app()
