"""What the cold start is compared with: a script that imports torch and one pipeline class, loads, draws and saves.

python cold_plain.py MODEL CLASS DEVICE OPTIONS    OPTIONS: JSON of what the pipeline's call takes, and `seed`
"""

import importlib
import json
import sys

import torch

model, pipeline_class, device, options = sys.argv[1:]
kind = getattr(importlib.import_module("diffusers"), pipeline_class)
print("imported", flush=True)
dtype = torch.bfloat16 if "Flux" in pipeline_class else torch.float16
pipeline = kind.from_pretrained(model, dtype=dtype if device == "cuda" else torch.float32).to(device)
pipeline.set_progress_bar_config(disable=True)
print("loaded", flush=True)
call = json.loads(options)
call["generator"] = torch.Generator().manual_seed(call.pop("seed"))
pipeline(**call).images[0].save("plain.png")
print("plain.png", flush=True)
