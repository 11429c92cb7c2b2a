"""Which member of a blend each sample of a run comes from, as Megatron's BlendedDataset draws them.

For each sample in turn it takes the member that lags furthest behind its share (`build_blending_indices` in
core/datasets/helpers.cpp), so nothing is left to chance: after any number of samples each member has its share of them
to within one sample or so, and the samples of a member come in the order that its own GPTDataset shuffled them into.
"""

import tempfile
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from helpers.corpus import samples
from helpers.corpus.blends import Blend
from helpers.corpus.corpus import Corpus, CorpusError
from helpers.show import bounds, frames
from helpers.show.arguments import checked
from helpers.show.names import told

MOST = 10**7  # samples: a few seconds


@told
@dataclass(frozen=True)
class Order:
    """The first samples of a blend's part. Both arrays have shape [samples].

    `members` says of each sample which member it comes from (its place in the blend), `numbers` which of that member's
    samples it is. `samples_an_epoch`: how many samples each member gives when its documents are read once.
    """

    IN_WORDS = "an order of samples, such as corpus.order(blend, 1024)"

    blend: Blend
    part: str
    members: np.ndarray
    numbers: np.ndarray
    samples_an_epoch: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples drawn from each member."""
        return tuple(np.bincount(self.members, minlength=len(self.blend.members)).tolist())

    @property
    def epochs(self) -> tuple[float, ...]:
        """How often these samples go through each member's documents."""
        return tuple(
            count / an_epoch if an_epoch else float("inf")  # not one whole sample in it
            for count, an_epoch in zip(self.counts, self.samples_an_epoch, strict=True)
        )

    def table(self):
        """A row for each member: weight, share asked, samples, share drawn, samples an epoch, epochs."""
        import pandas as pd

        columns = {
            "weight": self.blend.weights,
            "share asked": [f"{share:.2%}" for share in self.blend.shares],
            "samples": self.counts,
            "share drawn": [f"{count / len(self.members):.2%}" for count in self.counts],
            "samples an epoch": self.samples_an_epoch,
            "epochs": [round(epochs, 2) for epochs in self.epochs],
        }
        return pd.DataFrame(columns, index=list(self.blend.names))

    def __repr__(self) -> str:
        return f"{len(self.members):,} samples of {self.blend.name}\n{self.table().to_string()}"

    def _repr_html_(self) -> str:
        return frames.to_html(self.table())


@checked
def order(
    data: Blend | Corpus,
    sequence_length: Annotated[int, bounds.TOKENS],
    *,
    split: str = "90,5,5",
    part: samples.Part = "train",
    count: Annotated[int, bounds.SAMPLES] = 1000,
) -> Order:
    """The first `count` samples of a blend's part, as a training run would meet them; no text is read.

    Raises:
        CorpusError: `data` is one corpus, a part of a member has no document, or those are too many samples.
    """
    if not isinstance(data, Blend):
        raise CorpusError("the samples of one corpus all come from it: give a blend, corpus.blend({a: 0.7, b: 0.3}).")
    if count > MOST:
        raise CorpusError(
            f"corpus.order: {count:,} samples are more than the {MOST:,} that are put in order at once. After a few "
            "thousand the shares change no more."
        )
    an_epoch = samples.require_part(data, split, part, sequence_length, count)
    with tempfile.TemporaryDirectory() as index_cache:
        dataset = samples.megatron_dataset(
            data, sequence_length, split=split, part=part, count=count, index_cache=index_cache
        )
        members, numbers = np.array(dataset.dataset_index[:count]), np.array(dataset.dataset_sample_index[:count])
    return Order(data, part, members, numbers, tuple(an_epoch))
