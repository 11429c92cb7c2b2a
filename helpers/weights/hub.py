"""A model from the Hugging Face hub, given up on when it does not answer within ten seconds."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from helpers.machine.variables import hub_is_off
from helpers.weights.error import WeightsError

HUB_SECONDS = 10.0


def fetch(name: str) -> Path:
    """The folder of `owner/name` in the hub's own cache; what was fetched before is not fetched again.

    Raises:
        WeightsError: the hub is silent or off and the model is not here, there is none of that name, or it is gated.
    """
    why = "HF_HUB_OFFLINE is set, so the hub was not asked." if hub_is_off() else None
    told = {} if why else _ask(name, os.environ)
    if told.get("answered") and "error" in told:
        raise WeightsError(f"{name} from the Hugging Face hub: {told['error']}")
    if "folder" not in told:
        why = why or told.get("error") or f"The Hugging Face hub did not answer within {HUB_SECONDS:.0f} s."
        told = _ask(name, os.environ | {"HF_HUB_OFFLINE": "1"})
    if "folder" not in told:
        raise WeightsError(
            f"{name} is no folder here, and the hub cannot give it: {why} Give the path of a Hugging Face folder."
        )
    return Path(told["folder"])


def _ask(name: str, environment) -> dict:
    """What `hub_process.py` says, all of it in one; it is ended when it has not heard from the hub in time."""
    program = Path(__file__).with_name("hub_process.py")
    child = subprocess.Popen(
        [sys.executable, "-P", str(program), name],
        env=dict(environment) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    limit = threading.Timer(HUB_SECONDS, child.kill)
    limit.start()
    told: dict = {}
    try:
        for line in child.stdout:
            told |= json.loads(line)
            if told.get("answered"):
                limit.cancel()
        child.wait()
    finally:
        limit.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
    return told
