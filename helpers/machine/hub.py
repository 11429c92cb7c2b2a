"""The Hugging Face hub's client in a process of its own: it may retry for minutes, and only its end gives it up."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

HUB_SECONDS = 10.0


def answers(program: Path, *arguments: str, seconds: float, offline: bool = False) -> Iterator[dict]:
    """What a program of ours tells of the hub, a JSON object a line; close it to end the program.

    It is ended when it has not said {"answered": true} within `seconds`. `offline` leaves it what was fetched before.
    """
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-P", str(program), *arguments],
        env=environment | ({"HF_HUB_OFFLINE": "1"} if offline else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    limit = threading.Timer(seconds, child.kill)
    limit.start()
    try:
        for line in child.stdout:
            told = json.loads(line)
            if told.get("answered"):
                limit.cancel()
            yield told
        child.wait()
    finally:
        limit.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
