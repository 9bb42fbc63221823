"""A loaded model, and all that it takes to answer a job with it: from the request to pictures that are delivered."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from worker.api.endpoint import Endpoint
from worker.api.response import Answer, Timings, make_answer
from worker.clock import CLOCK
from worker.engine.drawing import Drawing
from worker.engine.load.devices import choose_devices
from worker.engine.load.loader import load_all
from worker.engine.model_trial import try_model
from worker.engine.self_test import self_test
from worker.engine.start_trials import try_addons
from worker.engine.warm_up import warm_up
from worker.errors import JobTimeoutError, WorkerBrokenError
from worker.images.load import PictureRules
from worker.output.delivery import DeliveredPictures, Delivery, deliver
from worker.output.encode import File, encode
from worker.output.metadata import format_metadata
from worker.output.options import OutputOptions, OutputRules
from worker.plan import Plan, make_plan
from worker.request import GeneratedImage
from worker.runtime.batcher import Batcher
from worker.runtime.failures import BROKEN
from worker.runtime.job import Job
from worker.runtime.logs import log, note_brought
from worker.runtime.replicas import Replica, make_replicas
from worker.settings import Settings
from worker.waiting import wait_for

LONGEST = 999_999.999_999  # a figure that is not known before the answer is counted takes no more room
MAX_ENCODED_AT_ONCE = 4  # pictures; zlib and libwebp leave the interpreter to others meanwhile


class LoadedModel:
    """A model that draws on all devices of this worker, and what becomes of its pictures.

    One thread draws on each device, for all jobs in turn, so an engine and its CUDA context are used by one job at a
    time.

    Attributes:
        engine: one of those that draw, for what is alike in all of them.
        replicas: all of those.
        batcher: has them draw.
        jobs_at_once: that can be in hand.
    """

    def __init__(self, settings: Settings, on_platform: bool, on_broken: Callable[[], None]) -> None:
        """Load it.

        Args:
            on_broken: told when it can draw no more.
        """
        self.settings = settings
        self._on_platform = on_platform
        self._output_rules = OutputRules.of_endpoint(settings)
        self._engines = load_all(settings, choose_devices(settings))
        self.engine = self._engines[0]
        self.replicas = make_replicas(self._engines, settings.gpus_per_picture)
        self.jobs_at_once = settings.jobs_at_once * len(self.replicas)
        self._being_read: set[Job] = set()  # those that may come to be drawn soon
        others_come = (lambda: bool(self._being_read)) if self.jobs_at_once > 1 else None
        self.batcher = Batcher(self.replicas, lambda _: on_broken(), others_come)
        self._encoding = ThreadPoolExecutor(MAX_ENCODED_AT_ONCE, thread_name_prefix="encode")

    def try_out(self) -> None:
        """See it draw, with what the owner has set beside it, and warm it up.

        Raises:
            WorkerError: something of that does not work.
        """
        for engine in self._engines:
            if self.settings.vae_name is None:  # else what fails is told of that
                try_model(engine)
        try_addons(self.engine, self.settings)
        if self.settings.warm_up == "auto":
            for one in self.replicas:
                self.batcher.run(partial(warm_up, one.engine), one)

    def expect(self, job: Job) -> None:
        """This job is about to be read, and may come to be drawn."""
        self._being_read.add(job)

    def expect_no_more(self, job: Job) -> None:
        """It is refused, given up or drawn."""
        self._being_read.discard(job)

    def wait_for_compiling(self) -> None:
        """Wait until nothing is compiled beside the drawing."""
        for one in self.replicas:
            if one.engine.graphs is not None:
                one.engine.graphs.wait()

    def stop_compiling(self) -> None:
        """For good: a process that ends waits for its threads, and a compile can take minutes."""
        for one in self.replicas:
            if one.engine.graphs is not None:
                one.engine.graphs.stop_compiling()

    def close(self) -> None:
        """End the threads, when what they have to do is done."""
        self._encoding.shutdown()
        self.batcher.close()

    def answer(self, job: Job) -> dict[str, Any]:
        """The handler's return value.

        Raises:
            Exception: the job cannot be answered so.
        """
        model = self.engine.capabilities
        job.record.note_input(job.raw.get("input"))
        endpoint = Endpoint(model, self._output_rules, self.settings, self.jobs_at_once)
        if (told := job.contract.tell(job.raw, endpoint)) is not None:
            job.record.note_question(job.contract.told, model.name)
            return told
        request, output = job.contract.parse(job.raw, model, self._picture_rules(job), self._output_rules)
        note_brought({request.negative_prompt or "", *(picture.prompt for picture in request.pictures)})
        plan = make_plan(request)
        job.record.note_plan(plan, model.name)
        drawn = self._draw(job, plan, output)
        return job.contract.write_answer(self._deliver(job, plan, output, drawn), output)

    def prove(self) -> None:
        """Draw and encode a picture that is known to be good, on every device.

        Raises:
            Exception: none is left that can.
        """
        for replica in self.replicas:
            if replica in self.batcher.artists:
                self._prove_one(replica)

    def _prove_one(self, replica: Replica) -> None:
        try:
            plan, pictures = self.batcher.run(partial(self_test, replica.engine), replica)
        except JobTimeoutError:
            raise
        except Exception as error:
            if len(self.batcher.artists) == 1:
                raise
            log.error("%s makes no pictures any more", replica.name, exc_info=error)
            self.batcher.leave_out(replica, WorkerBrokenError(f"{replica.name} makes no pictures any more; {BROKEN}"))
            return
        for one in pictures:
            self._encode(one, plan, "png", 100)

    def _draw(self, job: Job, plan: Plan, output: OutputOptions) -> "_Drawn":
        """The pictures, drawn when it is this job's turn, and their files; each is encoded while the next is drawn."""
        pictures: list[GeneratedImage] = []
        files: list[Future[File]] = []

        def on_picture(one: GeneratedImage) -> None:
            for each in one.list_pictures():
                pictures.append(each)
                files.append(self._encoding.submit(self._encode, each, plan, output.format, output.quality))

        job.begin("fetching its LoRAs")
        self.engine.loras.fetch(plan.request.loras, job.check)
        job.begin("waiting for its first step")
        ready = CLOCK.running_time()
        try:
            drawing = Drawing(plan, job.on_step, on_picture, job.deadline, job.check)
            outcome = self.batcher.draw(drawing, on_arrival=lambda: self.expect_no_more(job))
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
        price, started = self.settings.price_per_second, CLOCK.running_time()

        def complete(delivered: DeliveredPictures, deliver_s: float, cost: float) -> Answer:
            timings = replace(drawn.timings, deliver_s=deliver_s)
            name = self.engine.capabilities.name
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
        text = format_metadata(one.picture, plan, self.engine.capabilities)
        return encode(one.image, text, extension, quality)

    def _picture_rules(self, job: Job) -> PictureRules:
        return PictureRules(self.settings.image_hosts, self.settings.max_input_bytes, check=job.check)

    def _delivery(self, job: Job, plan: Plan, output: OutputOptions, drawn: "_Drawn") -> Delivery:
        def reencode() -> list[File]:
            return [self._encode(one, plan, "webp", output.quality) for one in drawn.pictures]

        return Delivery(
            job_id=job.id if self._on_platform else f"{job.id[:64]}-{uuid4().hex}",  # callers of an API choose theirs
            local=job.to_files,
            output=output,
            max_result_bytes=self.settings.max_result_bytes,
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
