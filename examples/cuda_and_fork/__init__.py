"""Programs that meet CUDA in forked processes, and those that do not: docs/cuda-and-fork.md."""
