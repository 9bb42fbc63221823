"""RunPod serverless worker: the model is loaded once, here, in the main process; then one call answers one job.

The SDK sends its heartbeat from a child process, which multiprocessing may start by importing this file again under
the name __mp_main__ (start methods spawn and forkserver). The child must not load the model: hence the first guard.
"""

if __name__ != "__mp_main__":
    import faulthandler
    import gc
    from collections.abc import Awaitable
    from functools import partial
    from typing import Any

    gc.disable()  # until all is imported, which leaves no garbage: looking for it took a fifth of their time

    from worker.environment import quiet_sdk, set_aside_unusable
    from worker.packages import list_needed_packages, list_unused_packages
    from worker.read_ahead import begin_to_read
    from worker.runtime.output_streams import keep_output_from_failing
    from worker.spared_imports import spare_imports

    if __name__ == "__main__":
        keep_output_from_failing()
    quiet_sdk()
    set_aside_unusable()
    begin_to_read()
    spare_imports(list_unused_packages(), list_needed_packages())

    import runpod

    from worker.runtime.gate import report_load_failure
    from worker.runtime.local_test import check_local_job, check_local_settings, is_local_test

    if __name__ == "__main__":  # before torch is imported and the model loaded, which takes seconds or minutes
        faulthandler.enable()  # a file that becomes shorter while its weights are read ends the process (SIGBUS)
        check_local_job()
        check_local_settings()

    from worker.engine.warm_device import begin_to_warm

    begin_to_warm()

    from worker.runtime.logs import log_libraries
    from worker.runtime.worker import Worker

    gc.freeze()
    gc.enable()

    WORKER = Worker()

    def handler(job: dict[str, Any]) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """Answer one job: {"id": ..., "input": {...}} -> pictures, or {"error": ..., "code": ...}.

        Where an event loop runs, as in the SDK, the answer is still to come: the loop stays free while a thread draws.
        """
        return WORKER.handle(job)


def main() -> None:
    """Serve jobs until the platform stops this worker, or run test_input.json once where there is no platform."""
    report_load_failure(WORKER.failure, WORKER.on_platform)
    log_libraries()
    answer = partial(WORKER.handle, to_files=True) if is_local_test() else handler
    try:
        runpod.serverless.start({"handler": answer, "concurrency_modifier": WORKER.gate.concurrency_modifier})
    finally:
        WORKER.stop_compiling()


if __name__ == "__main__":
    main()
