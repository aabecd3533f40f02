"""Make a release: check that all says the same version, build, try the wheel, and say what is left to do by hand.

    python tools/release.py 0.3.0            check and build into dist/, and change nothing else
    python tools/release.py 0.3.0 --write    first write the version and today's date into the files that name them

Nothing is published, tagged or pushed: the last lines that it prints are the commands for that.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+")
# Where a version stands: what comes before it in the line.
PLACES = {"pyproject.toml": 'version = "', "CITATION.cff": "version: "}
UNRELEASED = "(unreleased)"


def stated(text: str, before: str) -> str:
    """Return the version that a file states, behind `before` at the beginning of a line."""
    found = re.search(rf"^{re.escape(before)}({VERSION.pattern})", text, re.MULTILINE)
    return found[1] if found else ""


def problems(home: Path, version: str) -> Iterator[str]:
    """Yield what is not ready in a checkout for a release of this version."""
    for name, before in PLACES.items():
        if (is_now := stated((home / name).read_text(), before)) != version:
            yield f"{name} says version {is_now}, not {version}: --write changes it"
    heading = next((line for line in (home / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")), "")
    if not heading.startswith(f"## {version} "):
        yield f"CHANGELOG.md begins with {heading[3:]!r}, not with {version}: write what is new"
    elif UNRELEASED in heading:
        yield f"CHANGELOG.md says {version} {UNRELEASED}: --write puts the date there"


def write_version(home: Path, version: str, date: str) -> None:
    """Write a version into the files that state it, and the date into the changelog."""
    for name, before in PLACES.items():
        text = (home / name).read_text()
        (home / name).write_text(text.replace(f"{before}{stated(text, before)}", f"{before}{version}", 1))
    changelog = home / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(f"## {version} {UNRELEASED}", f"## {version} ({date})", 1))


def main() -> int:
    """Check, build and try; 0: it can be published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="such as 0.3.0")
    parser.add_argument("--write", action="store_true", help="write the version and the date into the files")
    args = parser.parse_args()
    if not VERSION.fullmatch(args.version):
        parser.error(f"{args.version!r} is no version, such as 0.3.0")
    if args.write:
        write_version(HOME, args.version, datetime.date.today().isoformat())
    found = [*problems(HOME, args.version)]
    if changed := subprocess.run(["git", "-C", HOME, "status", "--porcelain"], capture_output=True, text=True).stdout:
        found.append(f"not everything is committed: {changed.splitlines()[0].strip()}")
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    for command in (["make", "lint"], ["make", "audit"], ["make", "sbom"], ["make", "wheel-test"]):
        if code := subprocess.run(command, cwd=HOME, check=False).returncode:
            return code
    build = [sys.executable, "-m", "build", "--outdir", "dist"]
    if code := subprocess.run(build, cwd=HOME, check=False).returncode:
        return code
    print(f"now:\n  git tag -s v{args.version} && git push origin v{args.version}\n  twine upload dist/*")
    return 0


if __name__ == "__main__":
    sys.exit(main())
