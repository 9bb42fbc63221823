"""Checks that a tag can be released: the tag, the code and CHANGELOG.md say the same version.

python -m tools.release v0.2.0                            exit 1 with a line for each thing that differs
python -m tools.release v0.2.0 --repository OWNER/NAME    and whether RunPod's Hub is told this repository's name
python -m tools.release v0.2.0 --notes                    print what CHANGELOG.md says of it, for the release's page
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.hub import find_hub_problems

ROOT = Path(__file__).parent.parent
CHANGELOG = "CHANGELOG.md"
TAG = re.compile(r"v(\d+\.\d+\.\d+)")
# File -> where it holds the version; those that are there have to agree.
VERSIONS = {
    "pyproject.toml": re.compile(r'^version = "([^"]+)"', re.MULTILINE),
    "worker/version.py": re.compile(r'^VERSION\b[^=]*= "([^"]+)"', re.MULTILINE),
}
_HEADING = re.compile(r"^## \[([^\]]+)\].*\n", re.MULTILINE)


def read_sections(root: Path) -> dict[str, str]:
    """Heading of the changelog -> what stands below it, the newest first."""
    _, *parts = _HEADING.split((root / CHANGELOG).read_text())
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def find_problems(root: Path, tag: str) -> Iterator[str]:
    """What keeps this tag from being released, one sentence each."""
    if not (match := TAG.fullmatch(tag)):
        yield f"the tag is {tag!r}; it should be like v0.2.0"
        return
    version = match[1]
    for name, form in VERSIONS.items():
        held = form.search((root / name).read_text()) if (root / name).exists() else None
        if held and held[1] != version:
            yield f"{name} says {held[1]}, the tag {version}"
    sections = read_sections(root)
    if sections.pop("Unreleased", ""):
        yield f"{CHANGELOG} has changes under [Unreleased]; they belong under [{version}]"
    newest = next(iter(sections), "none")
    if newest != version:
        yield f"the newest version in {CHANGELOG} is {newest}, the tag {version}"
    elif not sections[version]:
        yield f"{CHANGELOG} says nothing of {version}"


def main() -> None:
    """Check, or print the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", help="such as v0.2.0")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="of this repository on GitHub")
    parser.add_argument("--notes", action="store_true", help="print the changes of this version")
    options = parser.parse_args()
    problems = [*find_problems(ROOT, options.tag)]
    if options.repository:
        problems += find_hub_problems(ROOT, options.repository)
    if problems:
        raise SystemExit("\n".join(problems))
    if options.notes:
        sys.stdout.write(read_sections(ROOT)[options.tag[1:]] + "\n")


if __name__ == "__main__":
    main()
