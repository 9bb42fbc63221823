"""A Python of its own for a test, which spares itself what a start of the worker does: half of its imports' time."""

PRELUDE = """
import gc
gc.disable()  # imports leave no garbage
from worker.spared_imports import spare_imports
spare_imports(["bitsandbytes", "torchao"])
"""
