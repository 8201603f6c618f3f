"""Build wheel and sdist, check them as an index would, and run the README's script with torch and numpy alone.

``python scripts/check_bare.py [PYTHON]``: the interpreter of the bare environment, by default this one. Exits with 1
and a line where something is wrong.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# torch is pinned: a looser request may pull several GB. What torch itself needs comes with it.
BARE = ("--constraint", str(ROOT / "constraints.txt"))
FOREIGN = ("lab", "records", "results", "benchmarks")  # rooms that neither the wheel nor the sdist holds


def main(python: str) -> None:
    """Everything the module says, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT))
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        check_contents(wheel, sdist)
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        check_index_page(wheel)
        run(python, "-m", "venv", str(built / "bare"))
        bare = str(built / "bare" / "bin" / "python")
        run(bare, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *BARE, str(wheel))
        script = built / "readme.py"
        script.write_text(readme_script(), encoding="utf8")
        print(run(bare, str(script)).strip())
        command = [str(Path(bare).with_name("autolr")), "--help"]
        no_extra = subprocess.run(command, capture_output=True, text=True, check=False)
        if no_extra.returncode != 1 or "torch-autolr[cli]" not in no_extra.stderr:
            sys.exit(f"Without the extra, autolr must say what to install; it said: {no_extra.stderr!r}")
    print(f"{wheel.name}: the library alone; the README's script runs with torch and numpy.")


def check_contents(wheel: Path, sdist: Path) -> None:
    """Refuse a wheel or an sdist that holds more than the library."""
    in_wheel = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    if foreign := {name for name in in_wheel if name != "autolr" and not name.endswith(".dist-info")}:
        sys.exit(f"The wheel must hold autolr alone; it also holds {', '.join(sorted(foreign))}.")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    if foreign := in_sdist & set(FOREIGN):
        sys.exit(f"The sdist must hold neither lab nor results; it holds {', '.join(sorted(foreign))}.")


def check_index_page(wheel: Path) -> None:
    """Refuse a README whose links lead nowhere on a package index; of those into the repository, whose file is not."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    text = archive.read(metadata).decode("utf8")
    for told in ("Project-URL: Homepage, https://", "Project-URL: Changelog, https://", "Keywords: ", "Classifier: "):
        if told not in text:
            sys.exit(f"The wheel's METADATA has no '{told}'.")
    readme = re.sub(r"^```.*?^```", "", text.partition("\n\n")[2], flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    home = re.findall(r"^Project-URL: Homepage, https://github\.com/(\S+)$", text, flags=re.MULTILINE)[0]
    own = re.compile(rf"https://(?:github|raw\.githubusercontent)\.com/{re.escape(home)}/(?:blob/)?v[\d.]+/([^#]+)")
    for link in links:
        if not link.startswith("https://"):
            sys.exit(f"The README's link {link} is relative on the index page.")
        if (found := own.match(link)) and not (ROOT / found[1]).exists():
            sys.exit(f"The README's link {link} leads to no file.")
    if not any(link.startswith("https://raw.") and link.endswith(".png") for link in links):
        sys.exit("The README's picture is not on the index page.")


def readme_script() -> str:
    """The README's first block of Python."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf8"), re.DOTALL)
    if found is None:
        sys.exit("README.md has no block of Python.")
    return found.group(1)


def run(*command: str) -> str:
    """Its output; exits with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir(), check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
