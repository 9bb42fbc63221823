"""Build the image and have it serve jobs, on a Debian machine without a Docker daemon: `make image-test`, as root.

buildah builds it on a base made by debootstrap, with torch's CPU build and a tiny model baked from a hub on this
machine that asks for a token. Then the image's own command runs as process 1 of its own namespaces, on the network of
this machine: the SDK's local test, and a worker of the emulated platform. Everything lies in one temporary folder.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from local_endpoint import LocalEndpoint
from local_endpoint.worker_process import worker_environment
from tests.helpers import tiny_models
from tests.helpers.local_hub import REPOSITORY, TOKEN, serve

ROOT = Path(__file__).parents[1]

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
    arguments = {"BASE_IMAGE": BASE, "REQUIREMENTS": "requirements.txt", "MODEL_NAME": REPOSITORY, "HF_ENDPOINT": hub}
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


def run_local_test(container: Container) -> None:
    """The SDK's local test with the embedded model: one picture of test_input.json."""
    assert container.start(MODEL_NAME="", RUNPOD_LOG_LEVEL="WARN").wait(timeout=300) == 0
    assert list((container.root / "app" / "outputs").glob("*.png")), "the local test left no picture"


def run_on_platform(container: Container, user: int) -> float:
    """One job from the emulated platform, then a stop. Returns the seconds from start to the first call for a job."""
    with contextlib.ExitStack() as stack:
        endpoint = LocalEndpoint().start()
        stack.callback(endpoint.stop)
        started = time.perf_counter()
        process = container.start(user, **worker_environment(endpoint, "in-the-image", ping_interval_ms=1000))
        stack.callback(process.kill)
        endpoint.events.wait("poll", worker_id="in-the-image", timeout=300, unless=lambda: process.poll() is not None)
        ready = time.perf_counter() - started
        answer = httpx.post(
            f"{endpoint.url}/runsync",
            headers={"Authorization": f"Bearer {endpoint.config.api_key}"},
            json={"input": {"prompt": "a red circle", "num_inference_steps": 2, "seed": 1}},
            timeout=300,
            trust_env=False,
        ).json()
        assert answer["status"] == "COMPLETED", answer
        assert answer["output"]["images"][0].startswith("data:image/png;base64,"), answer
        assert answer["output"]["model"] == REPOSITORY, answer
        first = psutil.Process(process.pid).children()[0]
        assert first.cmdline()[-1] == "handler.py", first.cmdline()
        first.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, "the idle worker did not leave on SIGTERM"
        return ready


def search_for_token(container: Container) -> None:
    """The build secret must be nowhere in the image."""
    assert TOKEN not in container.text, "the token is in the image's settings or history"
    search = ["grep", "--recursive", "--files-with-matches", "--devices=skip", "--exclude-dir=venv", TOKEN]
    assert subprocess.run([*search, container.root]).returncode == 1, "the token is in a file of the image"


def main() -> None:
    """Build, run, report."""
    missing = [tool for tool in ("buildah", "debootstrap", "unshare") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        sys.exit(f"make image-test needs Debian, root, and these packages: {', '.join(missing) or 'all are here'}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="image-test-")))
        buildah = Buildah(folder)
        make_base(buildah, folder)
        model = tiny_models.save(tiny_models.sd1(), folder / "model")
        hub = stack.enter_context(serve(model))
        started = time.perf_counter()
        build(buildah, folder, hub.url)
        print(f"built in {time.perf_counter() - started:.0f} s", flush=True)
        container = Container(buildah)
        sizes = [f"{name} {container.size(name):.2f}" for name in ("opt/venv", "opt/models", "app")]
        print(f"GB: all {container.size():.2f}, {', '.join(sizes)}", flush=True)
        search_for_token(container)
        run_local_test(container)
        for user in (0, 1000):
            print(f"user {user}: {run_on_platform(container, user):.1f} s from start to the first call for a job")


if __name__ == "__main__":
    main()
