"""What docs/deploy.md says of volumes, buckets and the Hub's listing is what the code and its figures say."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.documents import ROOT, Document
from worker.models.civitai import FOLDERS
from worker.models.locate import CACHES
from worker.output.address import read_address
from worker.settings import VOLUME, Settings

PAGE = Document(ROOT / "docs" / "deploy.md")
HUB = json.loads((ROOT / ".runpod" / "hub.json").read_text())["config"]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.text.splitlines() if line[:1] == "|"]


def test_the_volume_holds_what_the_worker_puts_there() -> None:
    (tree,) = (block for block in PAGE.blocks("text") if block.startswith(f"{VOLUME}/"))
    shown = {match[1] for match in re.finditer(r"── (\S+)/ ", tree)}
    own = {path for path in (*CACHES.values(), *FOLDERS) if path.is_relative_to(VOLUME)}
    assert {str(path.relative_to(VOLUME)) for path in own} <= shown
    yours = re.findall(r"yours: ([A-Z_]+)=(\S+)", tree)
    assert {name.lower() for name, _ in yours} <= {*Settings.model_fields}
    for name, value in yours:
        folder = Path(value.rpartition("=")[2]).relative_to(VOLUME).parts[0]
        assert folder in shown, name


@pytest.mark.parametrize("row", [row for row in ROWS if re.match(r"`https://.*`$", row[-1])], ids=lambda row: row[0])
def test_every_bucket_is_found_by_its_address(row: list[str]) -> None:
    address = read_address(row[-1].strip("`").replace("ACCOUNT", "0123456789abcdef" * 2))
    assert address.name in ("pictures", "VOLUME_ID") and address.folder == ""


def test_the_hub_asks_for_what_the_page_says() -> None:
    assert f"{HUB['containerDiskInGb']} GB of container disk" in PAGE.text
    (version,) = (row[1] for row in ROWS if row[0].startswith("*CUDA version selection*"))
    assert version == f"{HUB['allowedCudaVersions'][0]} and newer"
