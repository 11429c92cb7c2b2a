"""From a failed run's log to its cause and what to do about it."""

import re
from dataclasses import dataclass

from helpers.machine import megatron_flags
from helpers.processes import logs
from helpers.processes.symptoms import SYMPTOMS, Symptom

# What stands before a rank's own words: "[rank 1] " (our log), "[default1]:" (torchrun --tee), "[rank1]: " (torch).
PREFIX = re.compile(r"^(?:\[rank \d+\] |\[\w+?\d+\]:)?(?:\[rank\d+\]: ?)?", re.MULTILINE)
WARNING = re.compile(r"^.*\b[A-Z]\w*Warning: .*$", re.MULTILINE)  # what Python warns of did not stop the run
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")


@dataclass(frozen=True)
class Diagnosis:
    """What a log tells of a failure: the symptom's name, the line that shows it, its cause, what to do."""

    name: str
    line: str
    cause: str
    fix: str

    def __str__(self) -> str:
        return f"{self.name}\n  seen:  {self.line}\n  cause: {self.cause}\n  fix:   {self.fix}"


def diagnose(log: str) -> Diagnosis | None:
    """The root cause in a failed run's log, or None if the log shows no known symptom.

    Where several symptoms are found the first in `SYMPTOMS` is taken: causes stand there before consequences. Feed it
    the log of a failed launch only; a healthy log may mention what it could do without.
    """
    log = WARNING.sub("", PREFIX.sub("", log))
    for symptom in SYMPTOMS:
        if match := symptom.search(log):
            return _told(symptom, match, log)
    return None


def _told(symptom: Symptom, match: re.Match, log: str) -> Diagnosis:
    words = {name: value or "it" for name, value in match.groupdict().items()}
    if words.get("signal", "").isdecimal():
        words["signal"] = logs.signal_name(int(words["signal"]))
    cause, fix = symptom.cause.format(**words), symptom.fix.format(**words)
    if symptom.name == "unknown flag":
        fix = " ".join([fix, *_nearest(match["flags"], log)])
    start, end = log.rfind("\n", 0, match.start()) + 1, log.find("\n", match.end())
    line = " ".join(log[start : end if end >= 0 else None].split())
    return Diagnosis(symptom.name, line, cause, fix)


def _nearest(unknown: str, log: str) -> list[str]:
    """A sentence for each unknown flag that resembles a real one.

    argparse prints the usage, which names every flag, before it complains; without it Megatron's source is read.
    """
    usage = re.search(r"^usage: .*?(?=error: unrecognized arguments)", log, re.MULTILINE | re.DOTALL)
    flags = set(FLAG.findall(usage[0])) if usage else set()
    flags = flags if len(flags) > 100 else ()
    sentences = []
    for flag in FLAG.findall(unknown):
        if close := megatron_flags.nearest(flag, flags):
            sentences.append(f"Did you mean {close} instead of {flag}?")
    return sentences


def symptoms():
    """All known symptoms as a table: name, what to look for in the log (a regular expression), cause, fix."""
    import pandas as pd

    rows = [(s.name, s.pattern, s.cause, s.fix) for s in SYMPTOMS]
    return pd.DataFrame(rows, columns=["symptom", "in the log", "cause", "fix"]).set_index("symptom")
