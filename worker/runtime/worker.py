"""One job from the platform to its answer, and the one place that catches."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

from worker.api.parse import parse
from worker.api.response import Timings, count_bytes, make_answer, write_answer, write_failure
from worker.engine.generate import generate
from worker.engine.load.loader import choose_device, load
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.engine.recovery import release_exception_memory
from worker.engine.self_test import self_test
from worker.engine.steps import MakePreview
from worker.errors import InvalidInputError, WorkerBrokenError, WorkerError
from worker.images.load import PictureRules
from worker.output.delivery import Delivery, deliver
from worker.output.encode import File, encode
from worker.output.metadata import format_metadata
from worker.output.options import OutputOptions, OutputRules
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage
from worker.runtime.cancellation import Cancellation
from worker.runtime.failures import BROKEN, classify
from worker.runtime.gate import Gate
from worker.runtime.logs import log_to_stderr
from worker.runtime.progress import Progress
from worker.settings import on_platform, read_settings

log = logging.getLogger("worker")

LOCAL_TEST = "local_test"
MAX_JOBS = 8  # in hand at once, of which one is drawn; one that was cancelled may still wait for a host


class Worker:
    """A loaded model that answers jobs; or the reason why there is none.

    Each job has a thread of its own, for what waits: parsing, fetching pictures, delivering them. One thread draws, for
    all jobs in turn, so the engine and its CUDA context are used by one job at a time.

    Attributes:
        failure: why the model could not be loaded, or None.
        gate: lets no further job in once this process is broken.
    """

    def __init__(self) -> None:
        """Read the settings and load the model; a failure is kept, to be reported where it can be heard."""
        self._formatter = log_to_stderr()
        self.gate = Gate()
        self.failure: WorkerError | None = None
        self.on_platform = on_platform()
        self._jobs = ThreadPoolExecutor(MAX_JOBS, thread_name_prefix="job")
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encode")
        try:
            self._settings = read_settings()
            self._formatter.redact_settings(self._settings)
            self._engine = load(self._settings, choose_device())
        except Exception as error:
            self.failure = classify(error, "loading the model")

    def handle(self, job: Mapping[str, Any]) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """The answer to one job; where an event loop runs, as in the SDK, an awaitable of it.

        The loop stays free meanwhile. Cancelling the awaitable stops the job at its next step, and it ends only when
        nothing of the job is on its way to the platform any more.
        """
        progress, cancellation = Progress(job, silent=not self.on_platform), Cancellation()
        answer = self._jobs.submit(self._run, job, progress, cancellation)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return answer.result()
        return _await(answer, progress, cancellation)

    def _run(self, job: Mapping[str, Any], progress: Progress, cancellation: Cancellation) -> dict[str, Any]:
        """The answer to one job. Never raises: an exception would send the caller a traceback."""
        self.gate.job_taken()
        with self._formatter.redact_job(job):
            try:
                answer = self._answer(job, progress, cancellation)
                self.gate.job_succeeded()
                return answer
            except Exception as error:
                failure = self._recover(error)
                if failure.refresh_worker:
                    self.gate.mark_broken()
                log.warning("job %s failed: %s", job.get("id"), failure.code)
                return write_failure(failure)
            finally:
                progress.finish()

    def _recover(self, error: Exception) -> WorkerError:
        """What the caller is told of this exception, once the engine is as it was; or that this process is broken."""
        failure = classify(error)
        if self.failure or failure.refresh_worker or isinstance(failure, InvalidInputError):
            return failure
        return self._drawing.submit(self._repair, failure, error).result()  # not while another job is drawn

    def _repair(self, failure: WorkerError, error: Exception) -> WorkerError:
        try:
            release_exception_memory(error)
            self._engine.repair()
            if not failure.suspicious:
                return failure
            self_test(self._engine)
        except Exception as second:
            log.error("the engine could not be repaired", exc_info=second)
            return WorkerBrokenError(f"{failure}; {BROKEN}")
        if not self.gate.job_failed():
            return failure
        return WorkerBrokenError(f"{failure}, and so did the job before; {BROKEN}")

    def _answer(self, job: Mapping[str, Any], progress: Progress, cancellation: Cancellation) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        limit = self._settings.job_timeout_s
        deadline = time.monotonic() + limit if limit else None
        output_rules = OutputRules.of_endpoint(self._settings)
        request, output = parse(job, self._engine.capabilities, self._picture_rules(cancellation), output_rules)
        plan = make_plan(request)
        cancellation.check()
        drawn, files, timings = self._draw(plan, output, progress, cancellation, deadline)
        cancellation.check()
        prompt_warnings = list_prompt_warnings(self._engine, request)
        complete = partial(make_answer, self._engine.capabilities.name, plan, drawn, prompt_warnings, timings)
        delivery = self._delivery(job, plan, output, drawn, cancellation)
        answer = complete(deliver(files, delivery, lambda pictures: count_bytes(complete(pictures))))
        log.info("job %s: %d pictures, seed %d, %s", job.get("id"), len(drawn), answer.seed, asdict(timings))
        if delivery.local:
            print(*answer.images, sep="\n", flush=True)
        return write_answer(answer)

    def _draw(
        self, plan: Plan, output: OutputOptions, progress: Progress, cancellation: Cancellation, deadline: float | None
    ) -> tuple[list[GeneratedImage], list[File], Timings]:
        """The pictures, drawn when it is this job's turn, and their files; each is encoded while the next is drawn."""

        def on_step(done: int, total: int, make_preview: MakePreview | None) -> None:
            cancellation.check()
            progress.step(done, total, make_preview)

        def draw() -> list[tuple[GeneratedImage, Future[File]]]:
            cancellation.check()
            with closing(generate(self._engine, plan, on_step, deadline)) as pictures:
                return [(one, self._encoding.submit(to_file, one)) for one in pictures]

        to_file = partial(self._encode, plan=plan, extension=output.format, quality=output.quality)
        started = time.perf_counter()
        drawn = self._drawing.submit(draw).result()
        generated = time.perf_counter()
        files = [file.result() for _, file in drawn]
        encoded = time.perf_counter()
        timings = Timings(round(generated - started, 3), round(encoded - generated, 3))
        return [one for one, _ in drawn], files, timings

    def _encode(self, one: GeneratedImage, plan: Plan, extension: str, quality: int) -> File:
        text = format_metadata(one.picture, plan, self._engine.capabilities)
        return encode(one.image, text, extension, quality)

    def _picture_rules(self, cancellation: Cancellation) -> PictureRules:
        return PictureRules(self._settings.image_hosts, self._settings.max_input_bytes, check=cancellation.check)

    def _delivery(
        self,
        job: Mapping[str, Any],
        plan: Plan,
        output: OutputOptions,
        drawn: list[GeneratedImage],
        cancellation: Cancellation,
    ) -> Delivery:
        return Delivery(
            job_id=str(job.get("id")),
            local=job.get("id") == LOCAL_TEST,
            output=output,
            max_result_bytes=self._settings.max_result_bytes,
            check=cancellation.check,
            reencode=None
            if output.format_fixed
            else lambda: [self._encode(one, plan, "webp", output.quality) for one in drawn],
        )


async def _await(answer: Future[dict[str, Any]], progress: Progress, cancellation: Cancellation) -> dict[str, Any]:
    """The answer; cancelled, it takes the job with it."""
    try:
        return await asyncio.wrap_future(answer)
    except asyncio.CancelledError:
        cancellation.cancel()
        await asyncio.to_thread(progress.finish)
        raise
