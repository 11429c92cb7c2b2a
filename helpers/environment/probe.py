"""Questions to processes of their own: what imports, what GPUs reach, whether the hub answers."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

from helpers.machine import PROJECT, cuda_libraries
from helpers.machine.variables import hub_is_off, python_path

HUB_SECONDS = 2.0


def ask(subject: str, timeout_seconds: float) -> dict[str, dict]:
    """Facts told by the probe in a process of its own, with the CUDA libraries that a run would load.

    What it told before a crash or the time limit is kept. Nothing is imported from the folder the kernel is in.
    """
    command = [sys.executable, "-P", "-m", "helpers.ranks.probe", subject]
    environment = cuda_libraries.merged(cuda_libraries.variables()) | python_path()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, env=environment, cwd=PROJECT)
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
        end = f"the child process ended with {process.returncode}: {last_line(errors)}" if process.returncode else None
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        end = f"no answer within {timeout_seconds:.0f} s"
    except BaseException:
        process.kill()
        process.wait()
        raise
    return {fact.pop("step"): fact for fact in told(output)} | ({"end": {"error": end}} if end else {})


def told(output: str) -> list[dict]:
    """The probe's facts in some output, whatever prefix a launcher has put before them."""
    return [json.loads(match) for match in re.findall(r"PROBE (\{.*\})", output)]


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")[:300]


def ask_hub() -> dict:
    """Whether the Hugging Face hub (or the mirror in HF_ENDPOINT) answers; any HTTP answer counts."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if hub_is_off():
        return {"error": "switched off by HF_HUB_OFFLINE"}
    start = time.monotonic()
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            return {"error": f"{endpoint} answers with error {error.code}"}
    except (OSError, ValueError):
        return {"error": f"{endpoint} does not answer"}
    return {"endpoint": endpoint, "seconds": time.monotonic() - start}
