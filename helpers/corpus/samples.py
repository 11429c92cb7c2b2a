"""Training samples as the model is shown them, drawn through Megatron's own GPTDataset.

Megatron shuffles a part's documents, joins their tokens into one long row, cuts it into samples of sequence_length + 1
tokens (each shares one token with the next, because labels are tokens shifted by one), and shuffles the samples.
"""

import html
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from helpers.corpus import data_split
from helpers.corpus.blends import Blend
from helpers.corpus.corpus import Corpus, CorpusError
from helpers.machine import here, quietly
from helpers.show import bounds, frames, numbers
from helpers.show.arguments import checked
from helpers.show.names import told

MOST_SAMPLES, MOST_TOKENS = 10_000, 2**22  # drawn at once: seconds
ROWS = range(10_001)  # of a table
Part = Literal["train", "valid", "test"]


@told
@dataclass(frozen=True)
class Samples:
    """Samples of one part. The four arrays have shape [samples, sequence_length].

    `labels` are the tokens to predict, `loss_mask` is 0 where a prediction does not count, `position_ids` go into the
    position embedding. `parts` is a table of what each sample is packed from: sample, position (where in the sample it
    starts), corpus (its name: a blend has several), document, first_token (where in that document it starts), tokens.
    """

    IN_WORDS = "samples, such as corpus.draw(data, 1024)"

    corpus: Corpus | Blend
    tokens: np.ndarray
    labels: np.ndarray
    loss_mask: np.ndarray
    position_ids: np.ndarray
    parts: "pandas.DataFrame"  # noqa: F821

    @checked
    def text(self, i: Annotated[int, bounds.PLACE] = 0) -> str:
        """Sample `i` decoded; a document's end shows as the end-of-document token's name."""
        return self.corpus.decode(self.tokens[self._place(i)])

    @checked
    def document_ends(self, i: Annotated[int, bounds.PLACE] = 0) -> list[int]:
        """Positions of the end-of-document tokens in sample `i`."""
        return np.flatnonzero(self.tokens[self._place(i)] == self.corpus.eod_id).tolist()

    @checked
    def table(
        self,
        i: Annotated[int, bounds.PLACE] = 0,
        first: Annotated[int, bounds.PLACE] = 0,
        count: Annotated[int, ROWS] = 12,
    ):
        """Sample `i` from position `first` on, one row per position: token, id, label, label_id, position_id, loss."""
        import pandas as pd

        i, here = self._place(i), slice(first, first + count)
        tokens, labels = self.tokens[i, here], self.labels[i, here]
        return pd.DataFrame(
            {
                "token": [self.corpus.decode([t]) for t in tokens],
                "id": tokens,
                "label": [self.corpus.decode([t]) for t in labels],
                "label_id": labels,
                "position_id": self.position_ids[i, here],
                "loss": self.loss_mask[i, here],
            },
            index=pd.RangeIndex(first, first + len(tokens), name="position"),
        )

    @checked
    def around_document_end(self, before: Annotated[int, bounds.PLACE] = 4, after: Annotated[int, bounds.PLACE] = 4):
        """`table` around the first document's end that has that many tokens of the same sample on both sides; empty
        when no sample holds one."""
        length = self.tokens.shape[1]
        for i in range(len(self.tokens)):
            for end in self.document_ends(i):
                if before <= end < length - after:
                    return self.table(i, end - before, before + 1 + after)
        return self.table(0, 0, 0)

    def _place(self, i: int) -> int:
        if i >= len(self.tokens):
            raise IndexError(f"There is no sample {i:,}: {len(self.tokens):,} were drawn, and they count from 0.")
        return i

    def __repr__(self) -> str:
        count, length = self.tokens.shape
        ends = int((self.tokens == self.corpus.eod_id).sum())
        return f"{count} samples of {length} tokens of {self.corpus.name}, with {ends} ends of documents in them"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(repr(self))}</b>{frames.to_html(self.parts, index=False)}"


@checked
def draw(
    data: Corpus | Blend,
    sequence_length: Annotated[int, bounds.TOKENS],
    *,
    split: str = "90,5,5",
    part: Part = "train",
    count: Annotated[int, bounds.SAMPLES] = 4,
    seed: Annotated[int, bounds.SEED] = 1234,
    reset_position_ids: bool = False,
    eod_mask_loss: bool = False,
) -> Samples:
    """The first `count` samples of a part, as a training run with this `--seed` would meet them in its first pass.

    Args:
        split: that of the recipes unless given; Megatron's own, 969,30,1, leaves small corpora without a test part.
        part: "train", "valid" or "test".
        reset_position_ids, eod_mask_loss: Megatron's flags of these names; both off by default, so a sample's positions
            run on over the end of a document and that end counts in the loss.

    Raises:
        CorpusError: a part of the split has no document: Megatron would look for its tokens forever. Or it is more than
            is drawn at once.
    """
    if count > MOST_SAMPLES or count * sequence_length > MOST_TOKENS:
        fewer = min(MOST_SAMPLES, MOST_TOKENS // sequence_length)
        raise CorpusError(
            f"corpus.draw: {count:,} samples of {sequence_length:,} tokens are more than the {MOST_SAMPLES:,} samples, "
            f"or {MOST_TOKENS:,} tokens, that are drawn at once. "
            + (f"count={fewer:,} would do." if fewer else f"sequence_length={MOST_TOKENS:,} would do, with count=1.")
        )
    require_part(data, split, part, sequence_length, count)
    with tempfile.TemporaryDirectory() as index_cache:
        flags = {"seed": seed, "reset_position_ids": reset_position_ids, "eod_mask_loss": eod_mask_loss}
        dataset = megatron_dataset(
            data, sequence_length, split=split, part=part, count=count, index_cache=index_cache, **flags
        )
        drawn = [dataset[i] for i in range(count)]
        parts = _parts(dataset, data, sequence_length, count)
    arrays = {k: np.stack([d[k].numpy() for d in drawn]) for k in ("tokens", "labels", "loss_mask", "position_ids")}
    return Samples(corpus=data, parts=parts, **arrays)


def megatron_dataset(
    data: Corpus | Blend,
    sequence_length: int,
    *,
    split: str,
    part: str,
    count: int,
    index_cache: str | Path,
    seed: int = 1234,
    reset_position_ids: bool = False,
    eod_mask_loss: bool = False,
):
    """Megatron's dataset of one part with room for `count` samples, built as a training run builds it: a GPTDataset,
    or for a blend a BlendedDataset over the members' GPTDatasets.

    All parts with a share are built, and their indices written to `index_cache`. Importing Megatron takes seconds.
    `data` needs `data_path` and `tokenizer_path` only.
    """
    with quietly():
        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.utils import get_blend_from_list
        from megatron.core.tokenizers import MegatronTokenizer

        config = GPTDatasetConfig(
            random_seed=seed,
            sequence_length=sequence_length,
            blend=get_blend_from_list(list(data.data_path)),
            split=split,
            tokenizer=MegatronTokenizer.from_pretrained(str(data.tokenizer_path), {"library": "huggingface"}),
            path_to_cache=str(index_cache),
            reset_position_ids=reset_position_ids,
            reset_attention_mask=False,
            eod_mask_loss=eod_mask_loss,
            create_attention_mask=False,
        )
        sizes = [count if name == part else 1 for name in data_split.PARTS]
        parts = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
        return parts[data_split.PARTS.index(part)]


def require_part(data: Corpus | Blend, split: str, part: str, sequence_length: int, count: int = 0) -> list[int]:
    """How many samples one pass of a part gives, for each member of `data`.

    Raises:
        CorpusError: this or another part of a member has a share and no document (Megatron would add up zero tokens for
            ever; a split that works is named), this one has no share, or the index of `count` samples fills the memory.
    """
    passes = []
    for member, share in zip(data.members, getattr(data, "shares", (1,)), strict=True):
        opened = member.open_index()
        parts = data_split.parts(opened, split, sequence_length)
        for found in parts:
            if found["problem"] == "empty":
                raise CorpusError(
                    f"--split {split} gives {found['part']} {found['weight']:.2%} of {opened.sequences:,} documents of "
                    f"{member.name}, which rounds to none: Megatron would add up zero tokens forever. Give it a "
                    "larger share, such as --split 90,5,5, or none at all (0)."
                )
        chosen = parts[data_split.PARTS.index(part)]
        if not chosen["documents"]:
            raise CorpusError(f"--split {split} leaves nothing for {part}: give it a share.")
        need, have = data_split.index_bytes(chosen, math.ceil(count * share), sequence_length), here().memory_bytes
        if need > have:
            raise CorpusError(
                f"count={count:,}: Megatron's index of so many samples of {sequence_length:,} tokens takes "
                f"{numbers.decimal_bytes(need)} of memory, and this machine has {numbers.decimal_bytes(have)}. Ask for "
                f"fewer: one pass of {member.name} has {chosen['samples']:,}."
            )
        passes.append(chosen["samples"])
    return passes


def _parts(dataset, data: Corpus | Blend, sequence_length: int, count: int):
    import pandas as pd

    blended = isinstance(data, Blend)
    names = data.names if blended else (data.name,)
    lengths = [member.open_index().sequence_lengths for member in data.members]
    rows = []
    for sample in range(count):
        member = int(dataset.dataset_index[sample]) if blended else 0
        of_member = dataset.datasets[member] if blended else dataset
        number = int(dataset.dataset_sample_index[sample]) if blended else sample
        (place, offset), (_, _) = of_member.sample_index[of_member.shuffle_index[number] + np.array([0, 1])]
        position = 0
        while position < sequence_length:
            document = int(of_member.document_index[place])
            tokens = min(int(lengths[member][document]) - int(offset), sequence_length - position)
            if tokens:
                rows.append((sample, position, names[member], document, int(offset), tokens))
            position, place, offset = position + tokens, place + 1, 0
    return pd.DataFrame(rows, columns=["sample", "position", "corpus", "document", "first_token", "tokens"])
