"""After training: text from a checkpoint, its loss on held-out text, weights from and to Hugging Face."""

from helpers.weights.error import WeightsError
from helpers.weights.evaluation import Evaluation, compare, evaluate, evaluate_each
from helpers.weights.exporting import Export, to_hugging_face
from helpers.weights.generation import Generation, Token, generate
from helpers.weights.importing import fetch, from_hugging_face
