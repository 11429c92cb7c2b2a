"""GPT3-345M beside what a learner could use instead of this package, on the same GPU, batch and text.

`tests/benchmarks/against_nvidia.py` runs Megatron-LM's own `pretrain_gpt.py`, `tests/benchmarks/transformers_gpt2.py`
Hugging Face's GPT-2; their files lie in `recorded/<machine>/baselines`.
"""

from helpers.runs import records
from helpers.show import message, tables
from helpers.show.arguments import checked

NVIDIA = {
    "nvidia": "Megatron-LM's pretrain_gpt.py, started by our launcher",
    "nvidia torchrun": "Megatron-LM's pretrain_gpt.py, started by torchrun alone",
}
TRANSFORMERS = "transformers' GPT-2 with torch.compile and PyTorch's attention"


@checked
def table(machine: str):
    """One row per baseline (pandas): its tokens/s and ours; a sentence where none is recorded.

    Against NVIDIA's script ours runs with the very same flags, and the losses are compared step by step. Against
    transformers it is our fastest recorded run with the same batch and dropout.
    """
    import pandas as pd

    rows = [*_nvidia(machine), *_transformers(machine)]
    if not rows:
        return message.nothing_recorded("baseline")
    found = pd.DataFrame(rows)
    found["speed-up of ours"] = (found["ours"] / found["tokens/s"]).round(2)
    return tables.whole_sentences(found.set_index("instead of ours"))


def _read(machine: str, pattern: str, needed: tuple[str, ...]) -> list[dict]:
    folder = records.folder_of(machine) / "baselines"

    def figures(content: dict) -> dict:
        return {name: content[name] for name in needed}

    made_by = "A program of tests/benchmarks"
    return [records.of_file(path, figures, "baselines.table, {}", made_by) for path in sorted(folder.glob(pattern))]


def _nvidia(machine: str) -> list[dict]:
    rows = []
    for kept in _read(machine, "against_nvidia.json", ("tokens_per_second", "largest_loss_difference")):
        speeds, apart = kept["tokens_per_second"], kept["largest_loss_difference"]
        losses = f"largest difference {apart['ours to nvidia']:.4f}; ours to itself {apart['ours to ours']:.4f}"
        same = "the same flags, no CUDA graph"
        rows += [
            {"instead of ours": words, "settings": same, "tokens/s": speeds[name], "ours": speeds["ours"],
             "losses": losses}
            for name, words in NVIDIA.items()
        ]  # fmt: skip
    return rows


def _transformers(machine: str) -> list[dict]:
    rows = []
    for kept in _read(machine, "transformers_*.json", ("batch", "dropout", "tokens_per_second")):
        batch, dropout = kept["batch"][1], kept["dropout"]
        ours = [
            run.figures()["tokens/s/GPU"]
            for run in records.recorded(machine, "gpt3_345m_[1-9]_*")
            if (run.recipe.batch.global_batch_size, run.recipe.model.dropout) == (batch, dropout)
        ]
        if ours:
            settings = f"batch {batch}, dropout {dropout:g}, each as fast as we could make it"
            rows.append(
                {"instead of ours": TRANSFORMERS, "settings": settings, "tokens/s": round(kept["tokens_per_second"]),
                 "ours": round(max(ours)), "losses": "other first weights"}
            )  # fmt: skip
    return rows
