"""Text → tokens on disk → samples."""

from helpers.corpus.beside_megatron import watch_build, written_by_megatron
from helpers.corpus.blends import Blend, blend
from helpers.corpus.built_index import build_index
from helpers.corpus.corpus import Corpus, CorpusError, compare, prepare
from helpers.corpus.preprocess import preprocess_data
from helpers.corpus.sample_order import Order, order
from helpers.corpus.samples import draw
