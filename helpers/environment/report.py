"""Is this machine ready? Every finding, the fix for each that stands in the way, and what will run here.

environment.check()        a Report: findings with status ok, note or problem; and a plan for each notebook
environment.all_reduce()   real processes that add numbers up together
"""

import threading
from dataclasses import dataclass

from helpers.environment import gpus, host, software, tools
from helpers.environment.collectives import between_gpus
from helpers.environment.finding import Finding
from helpers.environment.probe import HUB_SECONDS, ask, ask_hub
from helpers.lessons import catalogue
from helpers.lessons.catalogue import Plan
from helpers.machine import Machine, here
from helpers.show.arguments import checked
from helpers.show.tables import SYMBOLS, Table


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
                f"{SYMBOLS[finding.status]} {finding.status}",
                finding.name,
                finding.found,
                finding.why + (f"\n→ {finding.fix}" if finding.fix else ""),
            )
            for finding in self.findings
        ]
        yield f"This machine: {self.machine.name}", ("", "looked at", "found", "why it matters, and what to do"), rows
        yield (
            "What runs here",
            ("notebook", "on this machine", "about how long"),
            [(plan.notebook, plan.here, plan.duration) for plan in self.plans],
        )

    def headline(self) -> str:
        problems = [finding.name for finding in self.findings if finding.status == "problem"]
        if not problems:
            return "Ready: nothing stands in the way."
        return f"Fix these first: {', '.join(problems)}."


@checked
def check(machine: Machine | None = None) -> Report:
    """Look at everything that training needs: system, drivers, packages, limits, network; on GPUs also what they reach.

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
    single = (*host.MACHINE, *software.SOFTWARE, gpus.cudnn, *tools.TOOLS)
    findings = [find(machine, facts) for find in single]
    if machine.gpus:
        findings += [finding for group in gpus.MEASURED for finding in group(machine, facts)]
    if len(machine.gpus) > 1:
        findings.append(between_gpus(machine))
    return Report(machine, tuple(findings), catalogue.of(machine, hub="error" not in facts["hub"]))
