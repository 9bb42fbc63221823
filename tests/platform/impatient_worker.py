"""handler.py, whose SDK gives a poll up after seconds instead of a minute and a half."""

import os
from typing import Any

if __name__ != "__mp_main__":
    from runpod.serverless.modules.rp_scale import JobScaler

    import handler

    prepare = JobScaler.__init__

    def prepare_impatient(scaler: JobScaler, config: dict[str, Any]) -> None:
        prepare(scaler, config)
        scaler.jobs_fetcher_timeout = float(os.environ["TEST_POLL_TIMEOUT_S"])

    JobScaler.__init__ = prepare_impatient

if __name__ == "__main__":
    handler.main()
