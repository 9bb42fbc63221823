"""What RunPod's Hub shows of this repository: the icon, and the addresses that name the repository.

python -m tools.hub --icon                      draw .runpod/icon.png with the embedded model
python -m tools.hub --repository OWNER/NAME     write this repository's name into hub.json and the README's badge
"""

import argparse
import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ICON = Path(".runpod") / "icon.png"
HUB = Path(".runpod") / "hub.json"
ICON_REQUEST = {"prompt": "a huge yellow star in the middle on a purple background", "seed": 2}
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_ICON_LINE = re.compile(r'("iconUrl": )"[^"]*"')
_PRESETS = re.compile(r'^    "presets": \[.*?^    \]', re.DOTALL | re.MULTILINE)
# The badge that stands there while nothing is published, or RunPod's own.
_BADGE = re.compile(r"\[!\[Deploy on RunPod\]\([^)]*\)\]\([^)]*\)")


def write_icon_url(repository: str) -> str:
    """Where GitHub serves the icon of this repository, `owner/name`."""
    return f"https://raw.githubusercontent.com/{repository}/main/{ICON.as_posix()}"


def write_badge(repository: str) -> str:
    """RunPod's badge, which leads to the Hub's page of this repository."""
    page = f"https://console.runpod.io/hub/{repository}"
    return f"[![Deploy on RunPod](https://api.runpod.io/badge/{repository})]({page})"


def insert_presets(form: str, presets: Sequence[Mapping[str, Any]]) -> str:
    """The text of hub.json with these presets."""
    lines = json.dumps({"presets": presets}, indent=2).splitlines()[1:-1]
    return _PRESETS.sub(lambda _: "\n".join(f"  {line}" for line in lines), form)


def name_repository(root: Path, repository: str) -> None:
    """Write the repository's name to where the Hub and the README need it.

    Raises:
        SystemExit: it is none.
    """
    if not REPOSITORY.fullmatch(repository):
        raise SystemExit(f"--repository: got {repository!r}; it should be owner/name, as in GitHub's address")
    hub, readme = root / HUB, root / "README.md"
    hub.write_text(_ICON_LINE.sub(rf'\1"{write_icon_url(repository)}"', hub.read_text()))
    readme.write_text(_BADGE.sub(write_badge(repository), readme.read_text()))


def find_hub_problems(root: Path, repository: str) -> list[str]:
    """What a release of this repository would show wrongly on the Hub, one sentence each."""
    wanted = write_icon_url(repository)
    found = json.loads((root / HUB).read_text()).get("iconUrl")
    remedy = f"run `python -m tools.hub --repository {repository}`"
    return [] if found == wanted else [f"{HUB}: iconUrl is {found}, this is {repository}; {remedy}"]


def draw_icon(path: Path) -> None:
    """Draw the icon.

    Raises:
        SystemExit: the job failed.
    """
    from handler import handler  # which loads the model

    answer = handler({"id": "icon", "input": ICON_REQUEST})
    if not isinstance(answer, dict) or "error" in answer:
        raise SystemExit(f"the icon was not drawn: {answer}")
    path.write_bytes(base64.b64decode(answer["images"][0].partition(",")[2]))


def main() -> None:
    """Draw, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--icon", action="store_true", help="draw the icon")
    group.add_argument("--repository", metavar="OWNER/NAME", help="of this repository on GitHub")
    options = parser.parse_args()
    if options.icon:
        draw_icon(ROOT / ICON)
    else:
        name_repository(ROOT, options.repository)


if __name__ == "__main__":
    main()
