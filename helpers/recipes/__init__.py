"""What to train, as values that know their Megatron flags."""

from helpers.recipes import accounting, changes, preflight
from helpers.recipes.fit import bf16_or_fp32
from helpers.recipes.layout import Layout
from helpers.recipes.models import gpt3_345m, gpt3_857m, llama3_8b, llama3_70b, llama3_405b, upstream_345m_label
from helpers.recipes.nodes import Nodes
from helpers.recipes.recipe import Recipe
