"""Is this machine ready? Every star that has to align, the fix for each that does not, and what will run here.

environment.check()        a Report: findings with status ok, note or problem; and a plan for each notebook
environment.all_reduce()   real processes that add numbers up together
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace

from helpers import gpu_stars, plans, stars, tool_stars
from helpers.machine import PROJECT, Machine, cuda_libraries, here
from helpers.plans import Plan
from helpers.show.numbers import binary_bytes, bytes_per_second
from helpers.show.tables import SYMBOLS, Table
from helpers.stars import Finding

HUB_SECONDS = 2.0


@dataclass(frozen=True, repr=False)
class Report(Table):
    """What `check` found. `ok` is False when something will not work; notes do not count."""

    machine: Machine
    findings: tuple[Finding, ...]
    plans: tuple[Plan, ...]

    @property
    def ok(self) -> bool:
        return all(finding.status != "problem" for finding in self.findings)

    def tables(self):
        rows = [
            (
                f"{SYMBOLS[star.status]} {star.status}",
                star.name,
                star.found,
                star.why + (f"\n→ {star.fix}" if star.fix else ""),
            )
            for star in self.findings
        ]
        yield f"This machine: {self.machine.name}", ("", "star", "found", "why it matters, and what to do"), rows
        yield (
            "What runs here",
            ("notebook", "on this machine", "about how long"),
            [(plan.notebook, plan.here, plan.duration) for plan in self.plans],
        )

    def headline(self) -> str:
        problems = [finding.name for finding in self.findings if finding.status == "problem"]
        if not problems:
            return "Ready: nothing stands in the way."
        return f"To mend first: {', '.join(problems)}. What to do stands beside each."


@dataclass(frozen=True, repr=False)
class Collectives(Table):
    """Collectives measured between real processes.

    A row has step (all-reduce or all-gather), bytes, seconds, bus_bytes_per_second and wrong_elements. Bus bandwidth
    is what nccl-tests calls busbw: bytes that cross a link a second, whatever the number of ranks.
    """

    backend: str
    processes: int
    rows: tuple[dict, ...]

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row["wrong_elements"] == 0 for row in self.rows)

    @property
    def bus_bytes_per_second(self) -> float:
        """The best of all sizes, in bytes a second."""
        return max(row["bus_bytes_per_second"] for row in self.rows)

    def tables(self):
        rows = [
            (
                row["step"],
                binary_bytes(row["bytes"]),
                f"{row['seconds'] * 1e3:.2f} ms",
                bytes_per_second(row["bus_bytes_per_second"]),
                "yes" if row["wrong_elements"] == 0 else f"no, {row['wrong_elements']} elements differ",
            )
            for row in self.rows
        ]
        title = f"{self.processes} processes over {self.backend}"
        yield title, ("collective", "size", "time", "bus bandwidth", "right result"), rows

    def headline(self) -> str:
        return (
            "Every process has the right sum." if self.ok else "Wrong numbers came back: do not train on this machine."
        )


def check(machine: Machine | None = None) -> Report:
    """Look at every star: system, drivers, packages, limits, network; on GPUs also what they reach.

    Takes about ten seconds without a GPU. Whatever may crash is imported in a child process.

    Raises:
        UnsupportedPlatform: outside Linux.
    """
    machine = machine or here()
    answer: dict[str, dict] = {}
    asking = threading.Thread(target=lambda: answer.update(hub=ask_hub()), daemon=True)
    asking.start()
    facts = ask("software", timeout_seconds=120)
    if machine.gpus:
        facts |= ask("gpus", timeout_seconds=120)
    asking.join(HUB_SECONDS)
    facts["hub"] = answer.get("hub", {"error": f"no answer within {HUB_SECONDS:.0f} s"})
    single = (*stars.MACHINE, *stars.SOFTWARE, gpu_stars.cudnn, *tool_stars.TOOLS)
    findings = [star(machine, facts) for star in single]
    if machine.gpus:
        findings += [finding for group in gpu_stars.MEASURED for finding in group(machine, facts)]
    if len(machine.gpus) > 1:
        findings.append(between_gpus(machine))
    return Report(machine, tuple(findings), plans.of(machine, hub="error" not in facts["hub"]))


def ask(subject: str, timeout_seconds: float) -> dict[str, dict]:
    """Facts told by the probe in a process of its own, with the CUDA libraries that a run would load.

    What it told before a crash or the time limit is kept. Nothing is imported from the folder the kernel is in.
    """
    command = [sys.executable, "-P", "-m", "helpers.ranks.probe", subject]
    environment = {
        **cuda_libraries.merged(cuda_libraries.variables()),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
    }
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
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
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


def all_reduce(processes: int = 2, machine: Machine | None = None) -> Collectives:
    """Let real processes add tensors up under torchrun and check every sum.

    NCCL with one GPU a process; gloo on the processor where there are fewer GPUs than processes.

    Raises:
        launch.TrainingFailed: a process died; the message names rank, cause and fix.
    """
    from helpers.processes import programs

    machine = machine or here()
    if len(machine.gpus) < processes:
        machine = replace(machine, gpus=())
    rows = told(programs.ranks("probe", processes, "collectives", machine=machine))
    return Collectives(rows[0]["backend"] if rows else "none", processes, tuple(rows))


def between_gpus(machine: Machine) -> Finding:
    """All-reduce and all-gather between all GPUs, and the link they ride on."""
    why = "Tensor parallelism adds up activations four times a layer: it lives from this link."
    link = gpu_stars.link()
    try:
        measured = all_reduce(len(machine.gpus), machine)
    except RuntimeError as error:
        fix = "Read the message; NCCL_DEBUG=INFO tells more. /dev/shm and the driver are the usual reasons."
        return Finding("Between GPUs", "problem", f"{link}: {last_line(str(error))}", why, fix)
    best = {
        step: max(row["bus_bytes_per_second"] for row in measured.rows if row["step"] == step) / 1e9
        for step in ("all-reduce", "all-gather")
    }
    found = f"{link}: " + ", ".join(f"{step} {speed:.0f} GB/s" for step, speed in best.items())
    if not measured.ok:
        return Finding("Between GPUs", "problem", found, why, measured.headline())
    return Finding("Between GPUs", "ok", found, why)
