"""Which calls of torch in a parent leave its forked child without CUDA? Needs a GPU.

Each call is made in a new process, which then forks; the child puts a tensor on the GPU. One line of JSON each.
"""

import json
import os
import subprocess
import sys

NVML = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
CALLS = [
    ("pass", {}),
    ("torch.manual_seed(0)", {}),
    ("torch.cuda.manual_seed_all(0)", {}),
    ("torch.cuda.device_count()", {}),
    ("torch.cuda.is_available()", {}),
    ("torch.cuda.is_available()", NVML),
    ("torch.cuda.get_device_name()", {}),
    ("torch.cuda.mem_get_info()", {}),
    ("torch.zeros(1).to('cuda')", {}),
]
TRY = """
import os, torch
{call}
initialised = torch.cuda.is_initialized()
if os.fork() == 0:
    try:
        torch.zeros(1).to('cuda')
        told = 'works'
    except Exception as error:
        told = f'{{type(error).__name__}}: {{error}}'.partition('\\n')[0]
    print(initialised, told, sep='\\t', flush=True)
    os._exit(0)
os.wait()
"""

if __name__ == "__main__":
    for call, env in CALLS:
        program = [sys.executable, "-c", TRY.format(call=call)]
        tried = subprocess.run(program, env=os.environ | env, capture_output=True, text=True, check=True, timeout=120)
        initialised, _, child = tried.stdout.strip().partition("\t")
        settings = "".join(f"{name}={value} " for name, value in env.items())
        print(json.dumps({"call": settings + call, "initialised": initialised == "True", "child": child}), flush=True)
