"""Every reader of files under atheris, which keeps the inputs that reach new code and alters those."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["autolr"]):
    from damaged_files import READERS, as_text, quietly

FILE = Path(tempfile.mkdtemp()) / "log.jsonl"
READS = [read for _, read in READERS.values()]


def one(content: bytes) -> None:
    """The first byte chooses the reader."""
    if content:
        FILE.write_bytes(content[1:])
        quietly(lambda: READS[content[0] % len(READS)](FILE))


if __name__ == "__main__":
    corpus = Path(sys.argv[-1])
    for number, (make, _) in enumerate(READERS.values()):
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + as_text(make()))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
