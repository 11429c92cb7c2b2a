"""Does the corpus give every part of the split a document, and the model the tokens it knows?"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.corpus import data_split, index
from helpers.corpus.tokenizer import TokenizerError, training_vocabulary
from helpers.machine import Machine, shared_memory
from helpers.recipes.preflight.problem import Problem, error
from helpers.show import numbers
from helpers.show.numbers import as_typed

GPT2 = 50257  # token ids

if TYPE_CHECKING:
    from helpers.corpus.blends import Blend
    from helpers.corpus.corpus import Corpus
    from helpers.recipes.recipe import Recipe


def no_corpus(data) -> Iterator[Problem]:
    """Something that training cannot take: a path, a name, a dict of weights."""
    if data is not None and not hasattr(data, "members"):
        why = "Training takes a prepared corpus, a blend of several, or None for made-up tokens."
        change = "corpus.prepare(…) prepares text, corpus.blend({a: 0.7, b: 0.3}) mixes two corpora."
        yield error(f"data of the type {type(data).__name__}", why, change)


def reading_ahead(recipe: "Recipe") -> Iterator[Problem]:
    """The process that reads ahead talks to its rank through /dev/shm."""
    words = ["--num-workers", "1", *(part for word in recipe.extra_flags for part in word.split("=", 1))]
    ahead = dict(itertools.pairwise(words))["--num-workers"]
    if ahead != "0" and (unusable := shared_memory.why_unusable()):
        why = f"The process that reads ahead talks to its rank through {unusable}."
        change = "Delete what fills it, or mount it for writing (docker run --ipc=host, or --shm-size=8g). "
        yield error("--num-workers " + ahead, why, change + 'Or read in the rank: extra_flags=("--num-workers", "0").')


def corpus_problems(recipe: "Recipe", data: "Corpus | Blend", machine: Machine) -> Iterator[Problem]:
    """The tokenizer, the two data files and the three parts of a corpus, or of each member of a blend; the index."""
    tokenizer = Path(data.tokenizer_path)
    if not tokenizer.exists() or (tokenizer.is_dir() and not any(tokenizer.iterdir())):
        why = f"Megatron reads the vocabulary from {tokenizer}, and there is nothing."
        yield error(f"tokenizer {data.tokenizer}", why, f'corpus.prepare("{data.members[0].name}") fetches it again.')
    blended = len(data.members) > 1
    found = [list(_member(recipe, member, f" of {member.name}" if blended else "")) for member in data.members]
    yield from dict.fromkeys(itertools.chain(*found))  # a split that is none is told once
    if blended and not recipe.schedule.eval_iters and not any(found) and _has_held_out(recipe, data):
        why = "Megatron makes a validation part of no samples out of a blend, and stops: no sample to consume."
        yield error(f"eval_iters=0 with {data.name}", why, 'eval_iters=1, or split="100,0,0".')
    if not any(found):
        yield from _samples(recipe, data, machine)


def _member(recipe: "Recipe", data: "Corpus", of_which: str) -> Iterator[Problem]:
    try:
        found = index.inspect(data.prefix, dtype=data.token_dtype)
    except index.InvalidIndex as invalid:
        yield error(f"corpus {data.name}", str(invalid), f'corpus.prepare("{data.name}") writes both files again.')
        return
    rows = recipe.model.vocab_size
    if data.max_token_id >= rows:
        why = f"The largest token id is {data.max_token_id:,}, and the embedding has rows 0 to {rows - 1:,}."
        padded = -(-data.vocab_size // 128) * 128
        change = f"vocab_size={padded}"
        if _known_size(recipe.tokenizer) <= rows:
            change += f', or corpus.prepare("{data.name}", tokenizer="{recipe.tokenizer}")'
        yield error(f"vocab_size={rows} with the tokens of {data.tokenizer}{of_which}", why, f"{change}.")
    yield from _parts(recipe, found, of_which)


def _parts(recipe: "Recipe", found: index.Index, of_which: str) -> Iterator[Problem]:
    """Empty and short parts, as `gpt_dataset.py` and `data_samplers.py` meet them."""
    s, length = recipe.schedule, recipe.model.sequence_length
    try:
        parts = {part["part"]: part for part in data_split.parts(found, s.split, length)}
    except ValueError as invalid:
        yield error(f"split={as_typed(s.split)}", str(invalid), 'split="90,5,5".')
        return
    shortest = min((part["tokens"] for part in parts.values() if part["tokens"]), default=2)
    needed = {"train": True, "valid": s.eval_iters > 0, "test": False}
    for name, part in parts.items():
        asked = f'split="{s.split}" of {found.sequences:,} documents{of_which}'
        if part["weight"] == 0 and needed[name]:
            why = (
                f"The {name} part has weight 0, so there is nothing to {'train' if name == 'train' else 'evaluate'} on."
            )
            change = 'split="90,5,5"' + (", or eval_iters=0." if name == "valid" else ".")
            yield error(asked, why, change)
        elif part["problem"] == "empty":
            why = (
                f"The {name} part gets {part['weight']:.2%} of the documents, which rounds to {part['documents']} "
                f"documents with {part['tokens']} tokens: Megatron's index builder would add up nothing forever."
            )
            share = max(1, -(-1000 // max(1, found.sequences)))
            roomy = f"{max(1, 1000 - 2 * share)},{share},{share}"
            change = f'split="{roomy}" gives each part a document, or weight 0 leaves the part out.'
            yield error(asked, why, change if found.sequences > 2 else "A corpus of at least 3 documents.")
        elif part["problem"] == "too short":
            why = (
                f"The {name} part has {part['tokens']:,} tokens, and one sample takes sequence_length + 1 = "
                f"{length + 1:,}: Megatron would stop, or fill every sample with copies of the same text."
            )
            change = f"A larger weight for {name}, a larger corpus, or sequence_length={_power_below(shortest)}."
            yield error(asked, why, change)


def _has_held_out(recipe: "Recipe", data: "Blend") -> bool:
    """Whether validation and test part have a share: those without one are not built at all."""
    parts = data_split.parts(data.members[0].open_index(), recipe.schedule.split, recipe.model.sequence_length)
    return any(part["weight"] for part in parts[1:])


def _samples(recipe: "Recipe", data: "Corpus | Blend", machine: Machine) -> Iterator[Problem]:
    """Before the first step rank 0 lays out every sample of the run, in memory."""
    length, samples = recipe.model.sequence_length, recipe.schedule.train_iters * recipe.batch.global_batch_size
    need = 0
    for member, share in zip(data.members, getattr(data, "shares", (1,)), strict=True):
        train = data_split.parts(member.open_index(), recipe.schedule.split, length)[0]
        need += data_split.index_bytes(train, math.ceil(samples * share), length)
    if need > machine.memory_bytes:
        have = numbers.decimal_bytes(machine.memory_bytes)
        why = (
            f"Megatron's index of the {samples:,} samples of the run takes {numbers.decimal_bytes(need)} of memory "
            f"before the first step; the machine has {have}."
        )
        fewer = max(1, int(recipe.schedule.train_iters * machine.memory_bytes / need / 2))
        asked = f"train_iters={recipe.schedule.train_iters} with global_batch_size={recipe.batch.global_batch_size}"
        yield error(asked, why, f"train_iters={fewer}, or a smaller batch.")


def _known_size(tokenizer: str) -> float:
    """How many token ids a tokenizer has, by its name; 0 for one in a folder, infinite for one that cannot be."""
    try:
        return GPT2 if tokenizer == "gpt2" else training_vocabulary(tokenizer) or 0
    except TokenizerError:
        return math.inf


def _power_below(tokens: int) -> int:
    return 1 << max(0, (max(2, tokens) - 1).bit_length() - 1)
