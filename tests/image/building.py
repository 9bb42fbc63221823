"""The image, built on a Debian machine without a Docker daemon, and its command run as process 1.

buildah builds it on a base made by debootstrap, with torch's CPU build and a tiny model baked from a hub on this
machine that asks for a token. A container is process 1 of its own namespaces, on the network of this machine.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.local_hub import REPOSITORY, TOKEN

ROOT = Path(__file__).parents[2]

BASE, IMAGE = "localhost/image-test-base", "localhost/image-worker"
SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTER = """root=$1 user=$2 folder=$3; shift 3
mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" &&
exec chroot --userspec="$user" "$root" env --chdir="$folder" "$@"
"""


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.store = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def __call__(self, command: str, *arguments: object) -> str:
        """Run a command; returns what it printed. Its messages go to this terminal."""
        whole = ["nice", "-n", "10", "buildah", *self.store, command, *map(str, arguments)]
        variables = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        return subprocess.run(whole, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_base(buildah: Buildah, folder: Path) -> None:
    """A base image: Debian 12 with Python 3.11 and its venv module."""
    packages = "--include=python3,python3-venv,ca-certificates"
    with (folder / "debootstrap.log").open("w") as log:
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, "bookworm", folder / "base"], check=True, stdout=log
        )
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, folder / "base", "/")
    buildah("config", "--env", SEARCH_PATH, container)
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(folder / "base")


def pip_settings(folder: Path) -> list[str]:
    """Mounts that give the build this machine's pip settings: indexes on the network, certificates, local wheels."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    settings = {}
    for key, _, value in (line.partition("=") for line in listed.splitlines()):
        words = [word for word in "".join(shlex.split(value)).split() if not word.startswith("file:")]
        if words:
            settings[key.rpartition(".")[2]] = words
    mounts = {word for words in settings.values() for word in words if word.startswith("/")}
    config = folder / "pip.conf"
    config.write_text("\n".join(["[global]", *(f"{key} = {' '.join(words)}" for key, words in settings.items()), ""]))
    return [f"--volume={config}:/etc/pip.conf:ro", *(f"--volume={path}:{path}:ro" for path in sorted(mounts))]


def build(buildah: Buildah, folder: Path, hub: str) -> None:
    """The image, with the tiny model baked."""
    (folder / "token").write_text(TOKEN)
    arguments = {
        "BASE_IMAGE": BASE,
        "REQUIREMENTS": "requirements-gpu.txt",
        "MODEL_NAME": REPOSITORY,
        "HF_ENDPOINT": hub,
    }
    buildah(
        "build",
        "--quiet",
        "--pull-never",
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        f"--secret=id=HF_TOKEN,src={folder / 'token'}",
        *pip_settings(folder),
        "--tag",
        IMAGE,
        ROOT,
    )


class Container:
    """The image's file system and settings, and its command as process 1 of its own namespaces."""

    def __init__(self, buildah: Buildah) -> None:
        self.root = Path(buildah("mount", buildah("from", "--pull-never", IMAGE)))
        self.text = buildah("inspect", "--type", "image", IMAGE)
        self.config: dict[str, Any] = json.loads(self.text)["OCIv1"]["config"]

    def start(self, user: int = 0, **variables: str) -> subprocess.Popen[bytes]:
        """Run the image's command; its output goes to this terminal."""
        enter = ["unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--kill-child", "sh", "-c", ENTER, "enter"]
        where = [str(self.root), f"{user}:{user}", self.config["WorkingDir"]]
        image = dict(line.split("=", 1) for line in self.config["Env"])
        return subprocess.Popen([*enter, *where, *self.config["Cmd"]], env={**image, **variables})

    def size(self, *parts: str) -> float:
        """Gigabytes on disk, of all or of one folder."""
        folder = self.root.joinpath(*parts)
        return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e9
