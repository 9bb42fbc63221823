"""In place of py-cpuinfo for whatever is started from this folder: RunPod's SDK asks it for the CPU's name as soon as
it is imported, for which the real one starts a Python of its own and takes a second. The worker has its own stand-in.
"""


def get_cpu_info() -> dict[str, str]:
    """No name, with which the SDK is content."""
    return {}
