"""One job from the platform to its answer, and the one place that catches."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from worker.api.capabilities_answer import asks_for_capabilities, describe_capabilities, write_capabilities
from worker.api.response import Answer, Timings, make_answer
from worker.clock import CLOCK
from worker.engine.drawing import Drawing
from worker.engine.engine import Engine
from worker.engine.load.devices import choose_devices
from worker.engine.load.loader import load_all
from worker.engine.model_trial import try_model
from worker.engine.self_test import self_test
from worker.engine.start_trials import try_addons
from worker.engine.warm_up import warm_up
from worker.environment import on_platform
from worker.errors import JobTimeoutError, WorkerBrokenError, WorkerError
from worker.images.load import PictureRules
from worker.output.delivery import DeliveredPictures, Delivery, deliver
from worker.output.encode import File, encode
from worker.output.metadata import format_metadata
from worker.output.options import OutputOptions, OutputRules
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage
from worker.runtime.answering import await_answer, wait_for_answer
from worker.runtime.batcher import Batcher
from worker.runtime.failures import BROKEN, classify, judge
from worker.runtime.gate import Gate
from worker.runtime.job import Job
from worker.runtime.logs import log, log_to_stderr, note_brought
from worker.runtime.replicas import Replica, make_replicas
from worker.settings import list_mistaken_names, read_settings
from worker.text import Own
from worker.waiting import wait_for

LONGEST = 999_999.999_999  # a figure that is not known before the answer is counted takes no more room
MAX_ENCODED_AT_ONCE = 4  # pictures; zlib and libwebp leave the interpreter to others meanwhile
# Beside those in hand: one that was cancelled, or whose time was over, may still be in what cannot be interrupted. With
# more of them the next jobs wait for a thread, and their time runs.
MAX_ABANDONED_JOBS = 8


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
        self.on_platform = on_platform()
        self._formatter = log_to_stderr(as_json=self.on_platform)
        self.gate = Gate()
        self.failure: WorkerError | None = None
        self._replicas: Sequence[Replica] = ()
        self._being_read: set[Job] = set()  # those that may come to be drawn soon
        self._encoding = ThreadPoolExecutor(MAX_ENCODED_AT_ONCE, thread_name_prefix="encode")
        for mistake in list_mistaken_names():
            log.warning("%s", mistake)
        try:
            self._settings = read_settings()
            self._formatter.redact_settings(self._settings)
            self._output_rules = OutputRules.of_endpoint(self._settings)
            engines = load_all(self._settings, choose_devices(self._settings))
            self._engine = engines[0]
            self._replicas = make_replicas(engines, self._settings.gpus_per_picture)
            self._at_once = self._settings.jobs_at_once * len(self._replicas)
            self.gate = Gate(self._at_once)
            self._start(engines)
        except Exception as error:
            self.failure = classify(error, "loading the model")
        at_once = 1 if self.failure else self._at_once
        self._jobs = ThreadPoolExecutor(at_once + MAX_ABANDONED_JOBS, thread_name_prefix="job")

    def _start(self, engines: Sequence[Engine]) -> None:
        """Have each of them drawn with, by a thread of its own, once it has been seen to draw."""
        others_come = (lambda: bool(self._being_read)) if self._at_once > 1 else None
        self._batcher = Batcher(self._replicas, lambda _: self.gate.mark_broken(), others_come)
        for engine in engines:
            if self._settings.vae_name is None:  # else what fails is told of that
                try_model(engine)
        try_addons(self._engine, self._settings)
        if self._settings.warm_up == "auto":
            for one in self._replicas:
                self._batcher.run(partial(warm_up, one.engine), one)

    def handle(self, raw: Mapping[str, Any], to_files: bool = False) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """The answer to one job; where an event loop runs, as in the SDK, an awaitable of it.

        The loop stays free meanwhile. Cancelling the awaitable stops the job at its next step, and it ends only when
        nothing of the job is on its way to the platform any more.

        Args:
            to_files: for the local test, whose pictures become files, and the answer their paths.
        """
        timeout_s = None if self.failure else self._settings.job_timeout_s
        job = Job(raw, silent=not self.on_platform, timeout_s=timeout_s, to_files=to_files)
        self._being_read.add(job)
        answer = self._jobs.submit(self._run, job)
        answer.add_done_callback(lambda _: self._being_read.discard(job))  # what is refused, or given up, is not drawn
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return wait_for_answer(answer, job, self._leave)
        return await_answer(answer, job, self._leave)

    def settle(self) -> None:
        """Wait until nothing is compiled beside the drawing."""
        for one in self._replicas:
            if one.engine.graphs is not None:
                one.engine.graphs.wait()

    def stop_compiling(self) -> None:
        """For good: a process that ends waits for its threads, and a compile can take minutes."""
        for one in self._replicas:
            if one.engine.graphs is not None:
                one.engine.graphs.stop_compiling()

    def close(self) -> None:
        """End the threads, when what they have to do is done."""
        for pool in (self._jobs, self._encoding):
            pool.shutdown()
        if self.failure is None:
            self._batcher.close()

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

    def _judge(self, failure: WorkerError) -> WorkerError:
        """What the caller is told: this failure, or that this process is to blame for it, and leaves."""
        if failure.suspicious and not failure.acquitted and self.failure is None:
            failure = judge(failure, self._prove)  # it came while nothing of the job was drawn
        if failure.acquitted:
            self.gate.job_succeeded()
        elif failure.suspicious and self.gate.job_failed():
            failure = WorkerBrokenError(f"{failure}, and so did the job before; {BROKEN}")
        if failure.refresh_worker:
            self.gate.mark_broken()
        return failure

    def _prove(self) -> None:
        """Draw and encode a picture that is known to be good, on every device.

        Raises:
            Exception: none is left that can.
        """
        for replica in self._replicas:
            if replica in self._batcher.artists:
                self._prove_one(replica)

    def _prove_one(self, replica: Replica) -> None:
        try:
            plan, pictures = self._batcher.run(partial(self_test, replica.engine), replica)
        except JobTimeoutError:
            raise
        except Exception as error:
            if len(self._batcher.artists) == 1:
                raise
            log.error("%s makes no pictures any more", replica.name, exc_info=error)
            self._batcher.leave_out(replica, WorkerBrokenError(f"{replica.name} makes no pictures any more; {BROKEN}"))
            return
        for one in pictures:
            self._encode(one, plan, "png", 100)

    def _answer(self, job: Job) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        model = self._engine.capabilities
        job.record.note_input(job.raw.get("input"))
        if asks_for_capabilities(job.raw.get("input")):
            job.record.note_question("capabilities", model.name)
            return write_capabilities(describe_capabilities(model, self._output_rules, self._settings, self._at_once))
        if (told := job.contract.tell(job.raw, model)) is not None:
            job.record.note_question("models", model.name)
            return told
        request, output = job.contract.parse(job.raw, model, self._picture_rules(job), self._output_rules)
        note_brought({request.negative_prompt or "", *(picture.prompt for picture in request.pictures)})
        plan = make_plan(request)
        job.record.note_plan(plan, model.name)
        drawn = self._draw(job, plan, output)
        return job.contract.write_answer(self._deliver(job, plan, output, drawn), output)

    def _draw(self, job: Job, plan: Plan, output: OutputOptions) -> "_Drawn":
        """The pictures, drawn when it is this job's turn, and their files; each is encoded while the next is drawn."""
        pictures: list[GeneratedImage] = []
        files: list[Future[File]] = []

        def on_picture(one: GeneratedImage) -> None:
            for each in one.list_pictures():
                pictures.append(each)
                files.append(self._encoding.submit(self._encode, each, plan, output.format, output.quality))

        job.begin("fetching its LoRAs")
        self._engine.loras.fetch(plan.request.loras, job.check)
        job.begin("waiting for its first step")
        ready = CLOCK.running_time()
        try:
            drawing = Drawing(plan, job.on_step, on_picture, job.deadline, job.check)
            outcome = self._batcher.draw(drawing, on_arrival=lambda: self._being_read.discard(job))
            job.record.note_drawing(pictures, outcome)
            if outcome.error is not None:
                raise outcome.error
            ended = CLOCK.running_time()
            job.begin("encoding the pictures")
            encoded = [wait_for(file, job.check) for file in files]
        finally:
            for file in files:
                file.cancel()  # those that have not begun, which nobody wants any more
        timings = Timings(
            waited_s=_round(outcome.began - ready),
            text_s=_round(outcome.usage.text_s),
            denoise_s=_round(outcome.usage.denoise_s),
            decode_s=_round(outcome.usage.decode_s),
            encode_s=_round(CLOCK.running_time() - ended),
            deliver_s=0.0,
        )
        return _Drawn(pictures, encoded, timings, outcome.warnings)

    def _deliver(self, job: Job, plan: Plan, output: OutputOptions, drawn: "_Drawn") -> Answer:
        """The answer, once the pictures are where it says."""
        job.begin("delivering the pictures")
        price, started = self._settings.price_per_second, CLOCK.running_time()

        def complete(delivered: DeliveredPictures, deliver_s: float, cost: float) -> Answer:
            timings = replace(drawn.timings, deliver_s=deliver_s)
            name = self._engine.capabilities.name
            return make_answer(name, plan, drawn.pictures, drawn.warnings, timings, delivered, cost if price else None)

        delivery = self._delivery(job, plan, output, drawn)
        count_bytes = job.contract.count_bytes
        delivered = deliver(drawn.files, delivery, lambda one: count_bytes(complete(one, LONGEST, LONGEST), output))
        cost = (price or 0.0) * (job.record.seconds() - drawn.timings.waited_s)
        answer = complete(delivered, _round(CLOCK.running_time() - started), float(f"{cost:.6g}"))
        job.record.timings = answer.timings
        job.record.bytes = delivered.file_bytes
        return answer

    def _encode(self, one: GeneratedImage, plan: Plan, extension: str, quality: int) -> File:
        text = format_metadata(one.picture, plan, self._engine.capabilities)
        return encode(one.image, text, extension, quality)

    def _picture_rules(self, job: Job) -> PictureRules:
        return PictureRules(self._settings.image_hosts, self._settings.max_input_bytes, check=job.check)

    def _delivery(self, job: Job, plan: Plan, output: OutputOptions, drawn: "_Drawn") -> Delivery:
        def reencode() -> list[File]:
            return [self._encode(one, plan, "webp", output.quality) for one in drawn.pictures]

        return Delivery(
            job_id=job.id if self.on_platform else f"{job.id[:64]}-{uuid4().hex}",  # callers of an API choose theirs
            local=job.to_files,
            output=output,
            max_result_bytes=self._settings.max_result_bytes,
            check=job.check,
            reencode=None if output.format_fixed else reencode,
        )


@dataclass(frozen=True)
class _Drawn:
    """A job's pictures, a file of each, the seconds up to here, and what of its prompts had no effect."""

    pictures: list[GeneratedImage]
    files: list[File]
    timings: Timings
    warnings: Sequence[str]


def _round(seconds: float) -> float:
    return round(seconds, 3)
