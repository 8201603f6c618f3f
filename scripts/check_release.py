"""What has to be so before a tag is set: ``python scripts/check_release.py``. Exits with 1 and a line for each fault.

docs/release.md says what comes before and after.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def faults(root: Path = ROOT) -> Iterator[str]:
    """Each thing that is not as a release needs it, with what to do."""
    text = {
        name: (root / name).read_text(encoding="utf8") for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")
    }
    version = re.findall(r'^__version__ = "(.+)"$', (root / "src/autolr/__init__.py").read_text(), re.MULTILINE)[0]
    if "OWNER" in text["pyproject.toml"].replace("# OWNER", "#"):
        yield "pyproject.toml still has OWNER in its addresses: put the account's name there, and drop the comment."
    if not re.search(rf"^version: {re.escape(version)}$", text["CITATION.cff"], re.MULTILINE):
        yield f"CITATION.cff must have version: {version}, which autolr.__version__ is."
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text["CHANGELOG.md"], re.MULTILINE):
        yield f"CHANGELOG.md must have a heading '## [{version}] - DATE' over what it brings."
    unreleased = text["CHANGELOG.md"].partition("## [Unreleased]")[2].partition("\n## ")[0].strip()
    if unreleased:
        yield "CHANGELOG.md must have nothing under [Unreleased]: move it under the version."
    if ran("git", "tag", "--list", f"v{version}", root=root):
        yield f"There is a tag v{version} already: raise autolr.__version__."
    if ran("git", "status", "--porcelain", root=root):
        yield "The working tree has changes: commit them."


def ran(*command: str, root: Path) -> str:
    """What it prints."""
    return subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout.strip()


if __name__ == "__main__":
    if found := list(faults()):
        sys.exit("\n".join(found))
    print("Ready to be tagged.")
