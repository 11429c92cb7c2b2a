"""What becomes of a run on Slurm when something fails: the record of each failure that was made, on two CPU nodes.

`tests/benchmarks/slurm_failures.py` makes it.
"""

from helpers.runs import records
from helpers.show import message, tables

RECORD = records.RECORDED / "cpu" / "slurm_failures.json"


def read() -> dict[str, dict]:
    """Failure → `told`, `gone_seconds`, `left`, `job` and, where it goes on, `resumed_after_step`; {} without a record.

    `told` is what a cell shows, `gone_seconds` how long it took until no process of the ranks was left on any node,
    `left` the names of those that stayed, `job` the state in which Slurm then had the job.
    """
    return records.if_there(RECORD, "tests/benchmarks/slurm_failures.py", lambda kept: kept["failures"])


def goes_on(row: dict) -> str:
    """Whether a run comes back without anybody, in words."""
    if "resumed_after_step" not in row:
        return "no"
    step = row["resumed_after_step"]
    return f"after step {step} of {row['last_step']}" if step else "from step 1"


def table():
    """A row a failure (pandas): when no rank was left, whether it goes on by itself, what the learner is told."""
    import pandas as pd

    found = read()
    if not found:
        return message.nothing_recorded("failure on Slurm")
    rows = {
        name: {
            "no rank left after s": row.get("gone_seconds"),
            "goes on by itself": goes_on(row),
            "what you are told": " ".join(row["told"].split()),
        }
        for name, row in found.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("what fails")
    return tables.whole_sentences(tables.dashed(table))
