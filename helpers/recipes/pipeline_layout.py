"""Megatron's words for which stage of a pipeline holds what: `--pipeline-model-parallel-layout "Et*3|ttL"`.

E is the embedding, t a transformer layer, L the final norm, output and loss; | ends a piece, and "t*3" is "ttt",
"(tt|)*2" is "tt|tt|". Piece i lies on stage i mod PP, as chunk i div PP. Read as
core/transformer/pipeline_parallel_layer_layout.py reads it.
"""

import re

from helpers.show.numbers import cut

REPEATED = (r"\(([^)]+)\)\*(\d+)", r"(.)\*(\d+)")
LONGEST = 10_000  # letters: a slip such as t*30000000 is not worked out


def pieces(text: str) -> tuple[str, ...]:
    """The pieces one after the other, written out: ("Ettt", "ttL").

    Raises:
        ValueError: it has other letters, or is longer than any model.
    """
    if sum(int(number) for number in re.findall(r"\*(\d+)", text)) > LONGEST:
        raise ValueError(f"It repeats a layer more than {LONGEST:,} times.")
    plain = text.replace(",", "")
    for pattern in REPEATED:
        plain = re.sub(pattern, lambda found: found[1] * int(found[2]), plain)
    if odd := sorted(set(plain) - set("EtLm|")):
        raise ValueError(
            f"{cut(', '.join(map(repr, odd)))} stands for nothing: E is the embedding, t a layer, L the loss."
        )
    return tuple(plain.split("|"))


def of_stage(text: str, pipeline_parallel: int, pipeline_rank: int) -> tuple[str, ...]:
    """What one stage holds, a piece for each of its chunks."""
    return pieces(text)[pipeline_rank::pipeline_parallel]
