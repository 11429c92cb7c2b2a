"""Text → tokens on disk → samples."""

from helpers.corpus.beside_megatron import watch_build, written_by_megatron
from helpers.corpus.corpus import Corpus, CorpusError, compare, prepare
from helpers.corpus.samples import draw
