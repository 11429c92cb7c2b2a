"""Which tensor of Megatron's GPTModel is which of Hugging Face's: GPT-2, Llama (Mistral), Qwen2 and Mixtral.

Whole tensors, as one rank holds them, under the names of Megatron's own layers (`--transformer-impl local`). Three
things differ beside the names. Megatron keeps queries, keys and values in one matrix, group by group: the query heads
of a group, its key, its value. A gated MLP's first matrix is [gate; up]. GPT-2's matrices are transposed (Conv1D).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.*)")
EXPERT = re.compile(r"mlp\.experts\.local_experts\.(\d+)\.linear_fc([12])\.weight")
CONSTANT = re.compile(r"(rotary_emb\.inv_freq|\.attn\.(masked_)?bias)$")  # of a model's code, kept by old files
OF_TWO_MODELS = "config.json and the weights are not of one model: fetch both from one place."
VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight")  # a row a token, padding behind
LLAMA = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
}
LLAMA_LAYER = {
    "input_layernorm": "input_layernorm",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "self_attention.linear_proj": "self_attn.o_proj",
    "mlp.linear_fc2": "mlp.down_proj",
    "mlp.router": "block_sparse_moe.gate",
}
GPT2 = {
    "embedding.word_embeddings.weight": "transformer.wte.weight",
    "embedding.position_embeddings.weight": "transformer.wpe.weight",
    "decoder.final_layernorm.weight": "transformer.ln_f.weight",
    "decoder.final_layernorm.bias": "transformer.ln_f.bias",
    "output_layer.weight": "lm_head.weight",
}
GPT2_LAYER = {
    "input_layernorm": "ln_1",
    "pre_mlp_layernorm": "ln_2",
    "self_attention.linear_qkv": "attn.c_attn",
    "self_attention.linear_proj": "attn.c_proj",
    "mlp.linear_fc1": "mlp.c_fc",
    "mlp.linear_fc2": "mlp.c_proj",
}


@dataclass(frozen=True)
class Sizes:
    """What the mapping has to know: `family` is "gpt2" or "llama", `vocabulary` the rows without padding."""

    family: str
    heads: int
    groups: int
    vocabulary: int


def to_hugging_face(name: str, tensor: torch.Tensor, sizes: Sizes) -> dict[str, torch.Tensor]:
    """Hugging Face's tensors, by name, of the whole Megatron parameter `name`.

    Raises:
        KeyError: neither family has such a parameter.
    """
    gpt2 = sizes.family == "gpt2"
    if name in (outer := GPT2 if gpt2 else LLAMA):
        return {outer[name]: tensor[: sizes.vocabulary] if name in VOCABULARY else tensor}
    layer, part = _layer_and_part(name)
    module, _, kind = part.rpartition(".")
    if gpt2:
        if module.endswith("linear_qkv"):
            tensor = torch.cat(split_qkv(tensor, sizes.heads, sizes.groups))
        return {f"transformer.h.{layer}.{GPT2_LAYER[module]}.{kind}": tensor.t() if tensor.dim() == 2 else tensor}
    prefix = f"model.layers.{layer}."
    if module.endswith("linear_qkv"):
        split = split_qkv(tensor, sizes.heads, sizes.groups)
        return {f"{prefix}self_attn.{x}_proj.{kind}": one for x, one in zip("qkv", split, strict=True)}
    if expert := EXPERT.fullmatch(part):
        place = f"{prefix}block_sparse_moe.experts.{expert[1]}."
        if expert[2] == "2":
            return {f"{place}w2.weight": tensor}
        gate, up = tensor.chunk(2)
        return {f"{place}w1.weight": gate, f"{place}w3.weight": up}
    if module == "mlp.linear_fc1":
        gate, up = tensor.chunk(2)
        return {f"{prefix}mlp.gate_proj.{kind}": gate, f"{prefix}mlp.up_proj.{kind}": up}
    return {f"{prefix}{LLAMA_LAYER[module]}.{kind}": tensor}


def to_megatron(name: str, weights: Mapping[str, torch.Tensor], sizes: Sizes, rows: int) -> torch.Tensor:
    """The whole Megatron parameter `name` out of Hugging Face's tensors; `rows` of the embedding, padding included.

    Raises:
        KeyError: a tensor is missing in `weights`, or neither family has such a parameter.
    """
    gpt2 = sizes.family == "gpt2"
    if name in (outer := GPT2 if gpt2 else LLAMA):
        return padded(weights[outer[name]], rows) if name in VOCABULARY else weights[outer[name]]
    layer, part = _layer_and_part(name)
    module, _, kind = part.rpartition(".")
    if gpt2:
        tensor = weights[f"transformer.h.{layer}.{GPT2_LAYER[module]}.{kind}"]
        tensor = tensor.t() if tensor.dim() == 2 else tensor
        return fuse_qkv(*tensor.chunk(3), sizes.groups) if module.endswith("linear_qkv") else tensor
    prefix = f"model.layers.{layer}."
    if module.endswith("linear_qkv"):
        return fuse_qkv(*(weights[f"{prefix}self_attn.{x}_proj.{kind}"] for x in "qkv"), sizes.groups)
    if expert := EXPERT.fullmatch(part):
        place = f"{prefix}block_sparse_moe.experts.{expert[1]}."
        if expert[2] == "2":
            return weights[f"{place}w2.weight"]
        return torch.cat([weights[f"{place}w1.weight"], weights[f"{place}w3.weight"]])
    if module == "mlp.linear_fc1":
        return torch.cat([weights[f"{prefix}mlp.{x}_proj.{kind}"] for x in ("gate", "up")])
    return weights[f"{prefix}{LLAMA_LAYER[module]}.{kind}"]


def why_unread(weights: Mapping[str, torch.Tensor], read: set[str]) -> str | None:
    """What is wrong with tensors that found no place; None for constants, and for an output layer that is tied."""
    left = sorted(name for name in weights if name not in read and not CONSTANT.search(name))
    if (output := LLAMA["output_layer.weight"]) in left:
        embedding = next(name for name in (LLAMA[VOCABULARY[0]], GPT2[VOCABULARY[0]]) if name in weights)
        if not weights[embedding].equal(weights[output]):
            return (
                f"config.json ties the output layer to the embedding, and the files hold another {output}: set "
                "tie_word_embeddings to false in it."
            )
        left.remove(output)
    if left:
        return f"the files hold {len(left)} tensors that config.json has no place for, {left[0]} first. {OF_TWO_MODELS}"
    return None


def fuse_qkv(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: int) -> torch.Tensor:
    """[heads × d, …] and twice [groups × d, …] → [(heads + 2 groups) × d, …], group by group."""
    rest = q.shape[1:]
    return torch.cat([tensor.reshape(groups, -1, *rest) for tensor in (q, k, v)], dim=1).reshape(-1, *rest)


def split_qkv(qkv: torch.Tensor, heads: int, groups: int) -> list[torch.Tensor]:
    """[(heads + 2 groups) × d, …] → queries, keys and values."""
    rest, d = qkv.shape[1:], qkv.shape[0] // (heads + 2 * groups)
    split = qkv.reshape(groups, -1, *rest).split([heads // groups * d, d, d], dim=1)
    return [tensor.reshape(-1, *rest) for tensor in split]


def padded(table: torch.Tensor, rows: int) -> torch.Tensor:
    """An embedding with so many rows: those that are added are the mean of all.

    Megatron's loss counts padded rows in, and rows of zeros would take all probability from a model whose logits are
    negative, as GPT-2's are. The mean row's logit is the mean logit, so k such rows add at most log(1 + k / tokens) to
    the loss (Jensen: the exponential of the mean is at most the mean of the exponentials).
    """
    more = rows - len(table)
    return torch.cat([table, table.float().mean(0, keepdim=True).to(table.dtype).expand(more, -1)]) if more else table


def _layer_and_part(name: str) -> tuple[str, str]:
    found = LAYER.fullmatch(name)
    if not found:
        raise KeyError(name)
    return found[1], found[2]
