"""Tokens a second of text generation, recorded on a machine: `recorded/<machine>/generation/speeds.json`.

`tests/benchmarks/after_training.py` measures them.
"""

from helpers.runs import records
from helpers.show import message, tables
from helpers.show.arguments import checked

FILE, STEP = "generation/speeds.json", "generation/step.json"


@checked
def table(machine: str):
    """One row per model and program (pandas), a column per number of texts at once: tokens/s of all together.

    `its bound` is what one text could get if each step took no longer than reading the weights once.
    """
    import pandas as pd

    file = records.folder_of(machine) / FILE
    if not file.is_file():
        return message.nothing_recorded("generation speed")
    rows = records.of_file(file, lambda kept: list(kept["rows"]), "{}", "tests/benchmarks/after_training.py")
    found = pd.DataFrame(rows)
    wide = found.pivot(index=["model", "program"], columns="texts", values="tokens_per_second")
    wide.columns = [f"{texts} at once" if texts > 1 else "one text" for texts in wide.columns]
    bound = found.groupby(["model", "program"])["at_most"].first()
    share = (wide["one text"] / bound).map("{:.1%}".format)
    wide = wide.round(0)
    wide.insert(1, "its bound", bound.round(0))
    wide.insert(2, "share of it", share)
    return tables.whole_sentences(wide.reset_index().set_index("model"))
