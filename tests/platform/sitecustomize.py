"""Found by Python at start when this folder is on PYTHONPATH: the start method of Python 3.14, or any other."""

import multiprocessing
import os

if method := os.environ.get("TEST_START_METHOD"):
    multiprocessing.set_start_method(method, force=True)
