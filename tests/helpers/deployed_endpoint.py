"""A deployed endpoint that a test scripts: it answers for https://api.runpod.ai inside the browser."""

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import BrowserContext, Request, Route

from tests.helpers.asking import endpoint_of, model_of
from worker.api.capabilities_answer import tell_capabilities
from worker.models.capabilities import CONTROLLED, EDIT, Capabilities
from worker.models.control_kinds import ControlKind
from worker.models.editing import Editing

ID, KEY = "abc123def456", "rpa_CANARY0123456789"
_SD1 = model_of("sd1")
# A model with all that a form can show.
EVERYTHING = model_of(
    "sd1",
    loras=("neon", "people/anna"),
    controlnets=("canny", "union"),
    control_kinds={"canny": ControlKind(), "union": ControlKind(modes=2, names={"depth": 0, "pose": 1})},
    ip_adapter=True,
    tasks={**_SD1.tasks, EDIT: {}, EDIT + CONTROLLED: {}},
    editing=Editing(3),
)

Script = Callable[[dict[str, Any]], list[dict[str, Any]]]


def completed(output: dict[str, Any], **beside: Any) -> list[dict[str, Any]]:
    """The statuses of a job that is done at once."""
    return [{"status": "COMPLETED", "output": output, "executionTime": 1200, **beside}]


class DeployedEndpoint:
    """Give it to a browser's context with `serve`.

    Attributes:
        script: input of a job -> its statuses, one for each time that it is asked for; the last one stays.
        jobs: the inputs of the jobs that came, but for those that ask what the model can do.
        requests: all that was sent to the host.
        refusals: HTTP statuses to answer the next calls with.
        cancelled: ids of jobs.
    """

    def __init__(self, model: Capabilities = EVERYTHING) -> None:
        self.model = model
        self.script: Script = lambda job: completed({"images": []})
        self.jobs: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.refusals: list[int] = []
        self.cancelled: list[str] = []
        self._statuses: dict[str, list[dict[str, Any]]] = {}

    def serve(self, context: BrowserContext) -> None:
        """Answers the calls of this context's pages."""
        context.route("https://api.runpod.ai/**", self._answer)

    @property
    def known(self) -> dict[str, Any]:
        """What a browser has kept that was connected before and was to remember."""
        kept = {"local": False, "id": ID, "key": KEY}
        url = f"https://api.runpod.ai/v2/{ID}"
        return {"playground-endpoint": kept, f"playground-capabilities {url}": self._tell()["capabilities"]}

    def end_all(self, statuses: list[dict[str, Any]]) -> None:
        """Has all jobs end so, those that come later, too."""
        self.script = lambda job: statuses
        self._statuses = {job_id: list(statuses) for job_id in self._statuses}

    def _tell(self) -> dict[str, Any]:
        return tell_capabilities({"input": {"capabilities": True}}, endpoint_of(self.model)) or {}

    def _answer(self, route: Route) -> None:
        request = route.request
        self.requests.append(request)
        if self.refusals:
            return self._send(route, {"error": "not now"}, self.refusals.pop(0))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return self._send(route, {"error": "unauthorized"}, 401)
        way, _, job_id = request.url.partition(f"/v2/{ID}/")[2].partition("/")
        if way == "run":
            return self._send(route, self._take(json.loads(request.post_data or "{}")["input"]))
        if way == "cancel":
            self.cancelled.append(job_id)
            self._statuses[job_id] = [{"status": "CANCELLED"}]
        statuses = self._statuses[job_id]
        self._send(route, {"id": job_id, **(statuses.pop(0) if len(statuses) > 1 else statuses[0])})

    def _take(self, job: dict[str, Any]) -> dict[str, Any]:
        job_id = f"job-{len(self._statuses)}-u1"
        if job == {"capabilities": True}:
            self._statuses[job_id] = completed(self._tell())
        else:
            self.jobs.append(job)
            self._statuses[job_id] = self.script(job)
        return {"id": job_id, "status": "IN_QUEUE"}

    @staticmethod
    def _send(route: Route, answer: Any, status: int = 200) -> None:
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
        route.fulfill(status=status, headers=headers, json=answer)
