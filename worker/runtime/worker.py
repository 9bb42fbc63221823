"""One job from the platform to its answer, and the one place that catches."""

import asyncio
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from worker.environment import on_platform
from worker.errors import WorkerBrokenError, WorkerError
from worker.runtime.answering import await_answer, wait_for_answer
from worker.runtime.failures import BROKEN, classify, judge
from worker.runtime.gate import Gate
from worker.runtime.job import Job
from worker.runtime.loaded_model import LoadedModel
from worker.runtime.logs import log, log_to_stderr
from worker.settings import list_mistaken_names, read_settings
from worker.text import Own

# Beside those in hand: one that was cancelled, or whose time was over, may still be in what cannot be interrupted. With
# more of them the next jobs wait for a thread, and their time runs.
MAX_ABANDONED_JOBS = 8


class Worker:
    """Answers jobs, with a loaded model or with the reason why there is none.

    Each job has a thread of its own, for what waits: parsing, fetching pictures, delivering them.

    Attributes:
        gate: lets no further job in once this process is broken.
    """

    def __init__(self) -> None:
        """Read the settings and load the model; a failure is kept, to be reported where it can be heard."""
        self.on_platform = on_platform()
        self._formatter = log_to_stderr(as_json=self.on_platform)
        self.gate = Gate()
        for mistake in list_mistaken_names():
            log.warning("%s", mistake)
        self._loaded = self._load()
        at_once = self.model.jobs_at_once if self.model else 1
        self._jobs = ThreadPoolExecutor(at_once + MAX_ABANDONED_JOBS, thread_name_prefix="job")

    def _load(self) -> LoadedModel | WorkerError:
        """The model, which has been seen to draw, or why there is none."""
        model = None
        try:
            settings = read_settings()
            self._formatter.redact_settings(settings)
            model = LoadedModel(settings, self.on_platform, on_broken=lambda: self.gate.mark_broken())
            self.gate = Gate(model.jobs_at_once)
            model.try_out()
        except Exception as error:
            if model is not None:
                model.stop_compiling()
                model.close()
            return classify(error, "loading the model")
        return model

    @property
    def model(self) -> LoadedModel | None:
        """That which is loaded."""
        return self._loaded if isinstance(self._loaded, LoadedModel) else None

    @property
    def failure(self) -> WorkerError | None:
        """Why there is none, if there is none."""
        return self._loaded if isinstance(self._loaded, WorkerError) else None

    def handle(self, raw: Mapping[str, Any], to_files: bool = False) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """The answer to one job; where an event loop runs, as in the SDK, an awaitable of it.

        The loop stays free meanwhile. Cancelling the awaitable stops the job at its next step, and it ends only when
        nothing of the job is on its way to the platform any more.

        Args:
            to_files: for the local test, whose pictures become files, and the answer their paths.
        """
        model = self.model
        timeout_s = model.settings.job_timeout_s if model else None
        job = Job(raw, silent=not self.on_platform, timeout_s=timeout_s, to_files=to_files)
        if model:
            model.expect(job)
        answer = self._jobs.submit(self._run, job)
        if model:
            answer.add_done_callback(lambda _: model.expect_no_more(job))  # nor what is refused, or given up
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return wait_for_answer(answer, job, self._leave)
        return await_answer(answer, job, self._leave)

    def settle(self) -> None:
        """Wait until nothing is compiled beside the drawing."""
        if self.model:
            self.model.wait_for_compiling()

    def stop_compiling(self) -> None:
        """For good: a process that ends waits for its threads, and a compile can take minutes."""
        if self.model:
            self.model.stop_compiling()

    def close(self) -> None:
        """End the threads, when what they have to do is done."""
        self._jobs.shutdown()
        if self.model:
            self.model.close()

    def _leave(self, job: Job) -> dict[str, Any] | None:
        """The answer to a job that does not end though its time is over; None if it has ended, or has time.

        Whatever it is in goes on in its thread to where it asks whether it is still wanted.
        """
        if not job.is_overdue() or not job.settle():
            return None
        failure = job.timeout()
        job.record.note_failure(failure)
        with self._formatter.in_hand(job.id, {}):
            log.info("%s", Own(job.record.summary()), extra={"figures": job.record.figures()})
        return job.contract.write_failure(failure)

    def _run(self, job: Job) -> dict[str, Any]:
        """The answer to one job. Never raises: an exception would send the caller a traceback."""
        with self._formatter.in_hand(job.id, job.raw):
            try:
                answer = self._answer(job)
                self.gate.job_succeeded()
            except Exception as error:
                failure = self._judge(classify(error))
                job.record.note_failure(failure)
                answer = job.contract.write_failure(failure)
            settled = job.settle()
            job.progress.finish()
            if not settled:
                return answer  # which nobody hears
            log.info("%s", Own(job.record.summary()), extra={"figures": job.record.figures()})
        if job.to_files and "images" in answer:
            print(*answer["images"], sep="\n", flush=True)
        return answer

    def _answer(self, job: Job) -> dict[str, Any]:
        if isinstance(self._loaded, WorkerError):
            raise self._loaded
        return self._loaded.answer(job)

    def _judge(self, failure: WorkerError) -> WorkerError:
        """What the caller is told: this failure, or that this process is to blame for it, and leaves."""
        if failure.suspicious and not failure.acquitted and self.model:
            failure = judge(failure, self.model.prove)  # it came while nothing of the job was drawn
        if failure.acquitted:
            self.gate.job_succeeded()
        elif failure.suspicious and self.gate.job_failed():
            failure = WorkerBrokenError(f"{failure}, and so did the job before; {BROKEN}")
        if failure.refresh_worker:
            self.gate.mark_broken()
        return failure
