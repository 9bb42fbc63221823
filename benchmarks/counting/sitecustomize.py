"""At the end of a process that was started to be counted: how many modules it has imported, as its last line."""

import atexit
import os
import sys

if os.environ.pop("COUNT_MODULES", None):  # what it starts itself is not counted
    atexit.register(lambda: print(f"modules {len(sys.modules)}", flush=True))
