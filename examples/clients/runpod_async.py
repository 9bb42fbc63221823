"""RunPod's Python client with asyncio: several jobs at once, each saved as it comes back."""

import asyncio
import os
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import runpod

COLOURS = ("red", "green", "blue")


async def draw(endpoint: runpod.AsyncioEndpoint, colour: str) -> None:
    """Ask for one picture and save it."""
    # Its `run` takes the fields themselves, and puts them under `input`.
    job = await endpoint.run({"prompt": f"a big {colour} heart on a white background", "seed": 7})
    output = await job.output(timeout=600)  # without a time it gives up at once
    with urlopen(output["images"][0]) as picture:
        Path(f"heart-{colour}.png").write_bytes(picture.read())
    print(f"heart-{colour}.png")


async def main() -> None:
    """Ask for all of them."""
    async with aiohttp.ClientSession() as session:
        endpoint = runpod.AsyncioEndpoint(os.environ["RUNPOD_ENDPOINT_ID"], session, os.environ["RUNPOD_API_KEY"])
        await asyncio.gather(*(draw(endpoint, colour) for colour in COLOURS))


asyncio.run(main())
