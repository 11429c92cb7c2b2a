"""Several corpora in one run, by weight: what Megatron's `--data-path 0.7 PREFIX_A 0.3 PREFIX_B` says.

    mix = corpus.blend({speeches: 0.7, code: 0.3})

Weights count samples, not tokens or documents: of each 1,000 samples that a run takes, about 700 come from the first
corpus, however large it is. A member that has fewer is read again (`BlendedMegatronDatasetBuilder` asks each member's
GPTDataset for as many samples as its weight says, and that one goes through its documents as often as it takes).
"""

import hashlib
import html
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from helpers.corpus import tokenizer as tokenizers
from helpers.corpus.corpus import Corpus, CorpusError
from helpers.machine import short_path
from helpers.show import frames
from helpers.show.names import named, told
from helpers.show.numbers import as_typed

EXAMPLE = "corpus.blend({speeches: 0.7, code: 0.3})"


@told
@dataclass(frozen=True)
class Blend:
    """Corpora of one tokenizer with a weight each; training takes it wherever it takes a Corpus.

    `weights` are as given, `shares` sum to 1. The tokenizer's facts are those of the first member: all have the same.
    """

    IN_WORDS = f"a blend, such as {EXAMPLE}"

    members: tuple[Corpus, ...]
    weights: tuple[float, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights as Megatron normalizes them: shares of the samples, which sum to 1."""
        return tuple(weight / sum(self.weights) for weight in self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each member; two corpora of the same name are told apart by their fingerprints."""
        names = [member.name for member in self.members]
        return tuple(
            name if names.count(name) == 1 else f"{name} ({member.fingerprint[:6]})"
            for name, member in zip(names, self.members, strict=True)
        )

    @property
    def name(self) -> str:
        return " + ".join(f"{share:.3g} {name}" for share, name in zip(self.shares, self.names, strict=True))

    @property
    def data_path(self) -> tuple[str, ...]:
        """The words after `--data-path`: weight, prefix, weight, prefix … (`get_blend_from_list` reads them)."""
        pairs = zip(self.weights, self.members, strict=True)
        return tuple(word for weight, member in pairs for word in (_word(weight), str(member.prefix)))

    @property
    def fingerprint(self) -> str:
        """Stands for the members in their order, and their shares."""
        parts = [[member.fingerprint, share] for member, share in zip(self.members, self.shares, strict=True)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def tokenizer(self) -> str:
        return self.members[0].tokenizer

    @property
    def tokenizer_path(self) -> Path:
        return self.members[0].tokenizer_path

    @property
    def vocab_size(self) -> int:
        return self.members[0].vocab_size

    @property
    def eod_id(self) -> int:
        return self.members[0].eod_id

    @property
    def max_token_id(self) -> int:
        return max(member.max_token_id for member in self.members)

    def encode(self, text: str) -> list[int]:
        return self.members[0].encode(text)

    def decode(self, ids) -> str:
        return self.members[0].decode(ids)

    def table(self):
        """A row for each member: weight, share (of the samples), documents, tokens."""
        import pandas as pd

        columns = {
            "weight": self.weights,
            "share": [f"{share:.1%}" for share in self.shares],
            "documents": [member.documents for member in self.members],
            "tokens": [member.tokens for member in self.members],
        }
        return pd.DataFrame(columns, index=list(self.names))

    def __repr__(self) -> str:
        words = zip(map(_word, self.weights), (short_path(member.prefix) for member in self.members), strict=True)
        line = " \\\n  ".join(["--data-path", *(" ".join(pair) for pair in words)])
        return f"Blend {self.name}\n{self.table().to_string()}\n\n{line}"

    def _repr_html_(self) -> str:
        line = html.escape(repr(self).split("\n\n")[1])
        return f"<b>Blend {html.escape(self.name)}</b>{frames.to_html(self.table())}<pre>{line}</pre>"


@named
def blend(weights: Mapping[Corpus, float]) -> Blend:
    """Mix corpora: of all samples that a run takes, each member gives its weight's share.

    Raises:
        CorpusError: fewer than two members, one twice, something that is no Corpus, a weight that is no positive
            number, or two tokenizers.
    """
    if not isinstance(weights, Mapping):
        raise CorpusError(f"a blend is a dict of corpora and their weights, not {type(weights).__name__}: {EXAMPLE}.")
    if len(weights) < 2:
        raise CorpusError(
            f"a blend has two members or more, and this one has {len(weights)}: {EXAMPLE}. One corpus alone is "
            "handed to launch.train as it is."
        )
    for member in weights:
        _require_corpus(member)
    for member, weight in weights.items():
        _require_weight(member, weight)
    mix = Blend(tuple(weights), tuple(weights.values()))
    if not math.isfinite(sum(mix.weights)) or min(mix.shares) == 0:
        raise CorpusError(f"the weights {', '.join(map(_word, mix.weights))} lie too far apart: take numbers near 1.")
    _require_different(mix)
    _require_one_tokenizer(mix)
    return mix


def _word(weight: float) -> str:
    return str(float(weight)).removesuffix(".0")


def _require_corpus(member) -> None:
    if isinstance(member, Blend):
        raise CorpusError(
            f"{member.name} is a blend itself: list its members in the new one, each with its share of the whole."
        )
    if not isinstance(member, Corpus):
        raise CorpusError(
            f"{as_typed(member)} is no prepared corpus: blend what corpus.prepare(…) returns, such as "
            "speeches = corpus.prepare('sotu')."
        )


def _require_weight(member: Corpus, weight) -> None:
    number = isinstance(weight, Real) and not isinstance(weight, bool) and weight <= sys.float_info.max
    if not number or weight <= 0:
        why = "Leave a corpus out that is not to be read." if number else "Weights need not sum to 1: 7 and 3 do."
        raise CorpusError(f"{member.name} has the weight {as_typed(weight)}, which is no positive number. {why}")


def _require_different(mix: Blend) -> None:
    seen: dict[str, Corpus] = {}
    for member in mix.members:
        if member.fingerprint in seen:
            raise CorpusError(
                f"{member.name} is in the blend twice (the same text, the same tokenizer): Megatron would read the "
                "same documents under two weights. Add the weights up and name it once."
            )
        seen[member.fingerprint] = member


def _require_one_tokenizer(mix: Blend) -> None:
    first = mix.members[0]
    for member in mix.members:
        if not member.tokenizer_path.is_dir():
            raise CorpusError(f"{member.tokenizer_path}, the tokenizer of {member.name}, is gone: prepare it again.")
    for name, member in zip(mix.names, mix.members, strict=True):
        if tokenizers.content(member.tokenizer_path) != tokenizers.content(first.tokenizer_path):
            trained = first.tokenizer == member.tokenizer and tokenizers.training_vocabulary(first.tokenizer)
            same_name = " (each corpus trains a bpe-N of its own)" if trained else ""
            raise CorpusError(
                f"{mix.names[0]} is cut with {first.tokenizer} and {name} with another {member.tokenizer}{same_name}: "
                "a token id means one thing in each, and a run has one tokenizer. Prepare one with the other's: "
                f"corpus.prepare(…, tokenizer=first.tokenizer_path), where first is the corpus {mix.names[0]}."
            )
