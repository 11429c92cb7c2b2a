"""Tokens a second of text generation, recorded on a machine: `recorded/<machine>/generation/speeds.json`.

`tests/benchmarks/after_training.py` measures them.
"""

from helpers.runs import records
from helpers.show import message, tables
from helpers.show.arguments import checked

FILE = "generation/speeds.json"


@checked
def table(machine: str):
    """One row per model and program (pandas), a column per number of texts at once: tokens/s of all together.

    `at most` is what one text could get if each step took no longer than reading the weights once.
    """
    import pandas as pd

    file = records.folder_of(machine) / FILE
    if not file.is_file():
        return message.nothing_recorded("generation speed")
    rows = records.of_file(file, lambda kept: list(kept["rows"]), "{}", "tests/benchmarks/after_training.py")
    found = pd.DataFrame(rows)
    wide = found.pivot(index=["model", "program"], columns="texts", values="tokens_per_second").round(0)
    wide.columns = [f"{texts} at once" if texts > 1 else "one text" for texts in wide.columns]
    most = found.groupby(["model", "program"])["at_most"].first().round(0)
    return tables.whole_sentences(wide.assign(**{"at most (one text)": most}).reset_index().set_index("model"))
