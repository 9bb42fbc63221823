"""handler.py, in whose model a bug quotes all that it was called with, when a prompt says so; so do libraries."""

import logging
import threading
import warnings
from typing import Any

if __name__ != "__mp_main__":
    import handler

    run = handler.WORKER._answer
    own = logging.getLogger("a.library")
    own.addHandler(logging.StreamHandler())  # as some libraries have one

    def fail(prompt: str) -> None:
        raise RuntimeError(prompt)

    def quoting(job: Any, *rest: Any) -> Any:
        if "quote me" in str(job.raw):
            prompt = "\n".join(job.raw["input"]["prompt"])
            logging.getLogger("a.library").warning("cannot draw %s", prompt)
            warnings.warn(prompt, stacklevel=1)
            thread = threading.Thread(target=fail, args=(prompt,))
            thread.start()
            thread.join()
            try:
                raise ValueError(prompt)
            except ValueError:
                raise KeyError(job.raw, handler.WORKER.model.settings.hf_token.get_secret_value()) from None
        return run(job, *rest)

    handler.WORKER._answer = quoting

if __name__ == "__main__":
    handler.main()
