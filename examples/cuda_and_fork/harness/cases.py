"""What is run: which program, with which packages, started how."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
PROGRAMS = FOLDER / "programs"
REQUIREMENTS = FOLDER / "requirements"
WORKER = "handler.py"  # of this repository


@dataclass(frozen=True)
class Case:
    """One program in one environment.

    `title` has a place for the version of `package`. `environment` is a file of requirements/ without its suffix, ""
    for the packages of the Python that runs run_all. `module` is started as `python -m module arguments`, else the
    program is, with its arguments; `{port}` is the port; both with these `variables`. It is looked at once `loads`
    processes have loaded.
    """

    name: str
    title: str
    program: str
    environment: str = ""
    module: str = ""
    arguments: str = ""
    package: str = ""
    client: str = "http"
    loads: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, python: Path, port: int) -> list[str]:
        """The command line."""
        start = ["-m", self.module] if self.module else [self.program]
        return [str(python), *start, *self.arguments.format(port=port).split()]


def _sanic(version: str, kind: str, title: str) -> Case:
    name, program = f"sanic-{version}-{kind}", f"sanic_{kind.replace('-', '_')}.py"
    return Case(name, f"Sanic {{}}, {title}", program, f"sanic-{version}", package="sanic")


def _multiprocessing(name: str, title: str, arguments: str) -> Case:
    return Case(f"multiprocessing-{name}", f"multiprocessing, {title}", "multiprocessing_child.py", arguments=arguments)


def _preloaded() -> Case:
    title, arguments = "`forkserver`, program preloaded, `OMP_NUM_THREADS=1`", "forkserver multiprocessing_child"
    # With more threads the child's load never ends: OpenMP, in a copy of a process that had some, waits for them.
    return replace(_multiprocessing("forkserver-preload", title, arguments), variables={"OMP_NUM_THREADS": "1"})


def _main_block(order: str) -> Case:
    title = f"multiprocessing, `set_start_method` {order} a load under `if __name__`"
    return Case(f"multiprocessing-set-{order}", title, "multiprocessing_main_block.py", arguments=order)


def _dataloader(method: str) -> Case:
    title = f"DataLoader of torch {{}}, `{method}`"
    return Case(f"dataloader-{method}", title, "dataloader_workers.py", arguments=method, package="torch")


def _gunicorn(name: str, title: str, option: str = "") -> Case:
    arguments = f"--bind 127.0.0.1:{{port}} --workers 1 {option} gunicorn_app:app"
    return Case(name, title, "gunicorn_app.py", "gunicorn", "gunicorn", arguments, "gunicorn")


def _uvicorn(name: str, title: str, option: str = "", loads: int = 1) -> Case:
    arguments = f"--port {{port}} {option} uvicorn_app:app"
    return Case(name, title, "uvicorn_app.py", "uvicorn", "uvicorn", arguments, "uvicorn", loads=loads)


def _celery(name: str, pool: str) -> Case:
    arguments = f"--app celery_tasks worker --concurrency 1 --pool {pool}"
    title = f"Celery {{}}, `--pool {pool}`"
    return Case(name, title, "celery_tasks.py", "celery", "celery", arguments, "celery", client="celery")


CASES = (
    _sanic("22.6", "as-posted", "as posted"),
    _sanic("22.9", "as-posted", "as posted"),
    _sanic("22.9", "without-start-method", "without `set_start_method`"),
    _sanic("22.9", "repaired", "load in `before_server_start`"),
    _sanic("22.9", "single-process", "`single_process=True`"),
    _sanic("22.12", "as-posted", "as posted"),
    _sanic("25.12", "as-posted", "as posted"),
    _sanic("25.12", "without-start-method", "without `set_start_method`"),
    _sanic("25.12", "load-in-main", "load under `if __name__`"),
    _sanic("25.12", "repaired", "load in `before_server_start`"),
    _sanic("25.12", "single-process", "`single_process=True`"),
    Case("flask", "Flask {}", "flask_server.py", "flask", package="flask"),
    Case("flask-reloader", "Flask {}, `debug=True`", "flask_reloader.py", "flask", package="flask"),
    _gunicorn("gunicorn", "gunicorn {}"),
    _gunicorn("gunicorn-preload", "gunicorn {}, `--preload`", "--preload"),
    _uvicorn("uvicorn", "uvicorn {}"),
    _uvicorn("uvicorn-workers", "uvicorn {}, `--workers 2`", "--workers 2", loads=2),
    _uvicorn("uvicorn-reload", "uvicorn {}, `--reload`", "--reload"),
    _multiprocessing("fork", "`fork`", "fork"),
    _multiprocessing("spawn", "`spawn`", "spawn"),
    _multiprocessing("forkserver", "`forkserver`", "forkserver"),
    _preloaded(),
    *map(_main_block, ("before", "after")),
    *map(_dataloader, ("fork", "spawn")),
    _celery("celery-prefork", "prefork"),
    _celery("celery-solo", "solo"),
    Case("sqs-consumer", "a loop on an SQS queue, boto3 {}", "sqs_consumer.py", "sqs", package="boto3", client="sqs"),
    Case("this-worker", "this worker, runpod {}", WORKER, package="runpod", client="runpod"),
)
