"""What a published model's config.json and a recipe's `Model` say of each other: GPT-2, Llama, Mistral, Qwen2, Mixtral.

Field by field, as transformers 5.23 names them. What has no counterpart in Megatron's GPT is refused by its name.
"""

from dataclasses import dataclass

from helpers.recipes import Recipe
from helpers.recipes.settings import Batch, Checkpoints, Model, Precision, Schedule
from helpers.weights.error import WeightsError

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
LLAMA_31 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
EXACT_GELU = "--no-bias-gelu-fusion"  # Megatron's fused GELU is the tanh formula, the other one is exact
GELUS = {"gelu_new": (), "gelu_pytorch_tanh": (), "gelu": (EXACT_GELU,)}
LONGEST_SAMPLE = 1024  # a recipe's samples, until the learner asks for others

# What config.json may say besides what is read below: it is of no consequence for the numbers, or the same everywhere.
OF_NO_CONSEQUENCE = {
    "architectures", "attention_dropout", "attn_pdrop", "bos_token_id",
    "dtype", "embd_pdrop", "eos_token_id", "id2label", "initializer_range", "is_llama_config", "label2id",
    "max_window_layers", "model_type", "n_ctx", "output_router_logits", "pad_token_id", "problem_type",
    "resid_pdrop", "router_aux_loss_coef", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj", "task_specific_params", "torch_dtype", "transformers.js_config",
    "transformers_version", "unk_token_id", "unsloth_fixed", "unsloth_version", "use_cache", "return_dict",
    "chunk_size_feed_forward", "original_max_position_embeddings",
}  # fmt: skip
GPT2_READ = {
    "activation_function", "layer_norm_epsilon", "n_embd", "n_head", "n_inner", "n_layer", "n_positions",
}  # fmt: skip
LLAMA_READ = {
    "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "layer_types",
    "max_position_embeddings", "mlp_bias", "num_attention_heads", "num_experts_per_tok", "num_hidden_layers",
    "num_key_value_heads", "num_local_experts", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "use_sliding_window",
}  # fmt: skip
MUST_BE = {"scale_attn_weights": True, "pretraining_tp": 1, "router_jitter_noise": 0.0}


@dataclass(frozen=True)
class Published:
    """A model's config.json: as it lies there, and with transformers' defaults filled in."""

    raw: dict
    config: dict

    @property
    def family(self) -> str:
        return self.raw["model_type"]

    @property
    def vocabulary(self) -> int:
        return self.config["vocab_size"]

    @property
    def sizes(self) -> dict:
        """What `ranks/hugging_face.Sizes` takes."""
        return sizes_of(model_of(self)[0], self.family, self.vocabulary)


def sizes_of(model: Model, family: str, vocabulary: int) -> dict:
    mapping = "gpt2" if family == "gpt2" else "llama"
    return {
        "family": mapping,
        "heads": model.num_attention_heads,
        "groups": model.query_groups,
        "vocabulary": vocabulary,
    }


# ---- config.json → recipe ----------------------------------------------------------------------------------------
def recipe_of(published: Published, name: str, tokenizer: str) -> Recipe:
    """A recipe that goes on training the model: one sample at once, a small learning rate, checkpoints at the end."""
    model, extra_flags = model_of(published)
    said = str(published.config.get("dtype") or published.raw.get("torch_dtype") or "float32").removeprefix("torch.")
    if said not in DTYPES:
        raise WeightsError(f"config.json says dtype {said!r}: weights in float32, bfloat16 or float16 can be taken.")
    return Recipe(
        name=name,
        model=model,
        precision=Precision(dtype=DTYPES[said]),
        batch=Batch(micro_batch_size=1, global_batch_size=8),
        schedule=Schedule(train_iters=100, lr=5e-5, min_lr=5e-6, eval_interval=100),
        checkpoints=Checkpoints(save_interval=100),
        tokenizer=tokenizer,
        extra_flags=extra_flags,
    )


def model_of(published: Published) -> tuple[Model, tuple[str, ...]]:
    """The `Model` of a config.json, and the flags that it needs besides."""
    c, family = published.config, published.family
    _refuse_unknown(published)
    rows = -(-c["vocab_size"] // 128) * 128
    if family == "gpt2":
        if c["activation_function"] not in GELUS:
            raise _no_counterpart("activation_function", c["activation_function"])
        model = Model(
            num_layers=c["n_layer"],
            hidden_size=c["n_embd"],
            num_attention_heads=c["n_head"],
            sequence_length=min(c["n_positions"], LONGEST_SAMPLE),
            vocab_size=rows,
            ffn_hidden_size=c["n_inner"],
            tied_embeddings=c["tie_word_embeddings"],
            dropout=0.0,
            init_method_std=c["initializer_range"],
            max_positions=c["n_positions"],
            norm_epsilon=_rounded(c["layer_norm_epsilon"]),
        )
        return model, GELUS[c["activation_function"]]
    if c["hidden_act"] != "silu":
        raise _no_counterpart("hidden_act", c["hidden_act"])
    biased = c.get("attention_bias", False)
    if biased != c.get("mlp_bias", False):
        raise WeightsError(
            f"config.json sets attention_bias={biased} and mlp_bias={c.get('mlp_bias', False)}: Megatron has biases in "
            "all linear layers, in none, or in those of queries, keys and values alone: take a model of either kind."
        )
    heads, width = c["num_attention_heads"], c["hidden_size"]
    head_size = c.get("head_dim") or width // heads
    base, factor = _rotations(c)
    return Model(
        num_layers=c["num_hidden_layers"],
        hidden_size=width,
        num_attention_heads=heads,
        sequence_length=min(c["max_position_embeddings"], LONGEST_SAMPLE),
        vocab_size=rows,
        ffn_hidden_size=c["intermediate_size"],
        num_query_groups=c["num_key_value_heads"] if c["num_key_value_heads"] != heads else None,
        normalization="RMSNorm",
        activation="swiglu",
        position_embedding="rope",
        rotary_base=base,
        tied_embeddings=c["tie_word_embeddings"],
        linear_bias=biased,
        dropout=0.0,
        init_method_std=c["initializer_range"],
        num_experts=c["num_local_experts"] if family == "mixtral" else None,
        moe_router_topk=c["num_experts_per_tok"] if family == "mixtral" else 2,
        kv_channels=head_size if head_size * heads != width else None,
        max_positions=c["max_position_embeddings"],
        norm_epsilon=_rounded(c["rms_norm_eps"]),
        qkv_bias=family == "qwen2",
        rope_scaling_factor=factor,
    ), ()


def _rounded(epsilon: float) -> float:
    """1e-5 where a file has kept it as 9.9999997e-06."""
    return float(f"{epsilon:.5g}")


def _rotations(c: dict) -> tuple[int, float | None]:
    """RoPE's base, and the factor of Llama 3.1's scaling (None: not scaled)."""
    said = c.get("rope_parameters") or {}
    base, kind = said.get("rope_theta", c.get("rope_theta", 10000.0)), said.get("rope_type", "default")
    if base != int(base):
        raise _no_counterpart("rope_theta", base)
    if kind == "default":
        return int(base), None
    if kind != "llama3":
        raise WeightsError(
            f"config.json scales its rotary positions by {kind!r}: Megatron knows 'llama3' alone, Llama 3.1's way. "
            "Take a model without it."
        )
    for name, known in LLAMA_31.items():
        if said.get(name) != known:
            raise WeightsError(
                f"config.json sets {name}={said.get(name)} for its rotary positions: Megatron has {known:g} built in, "
                "and the model would give other numbers. Take a model that has the same."
            )
    return int(base), float(said["factor"])


def _refuse_unknown(published: Published) -> None:
    raw, c, family = published.raw, published.config, published.family
    sliding = c.get("sliding_window") if family != "qwen2" or c.get("use_sliding_window") else None
    if sliding is not None or "sliding_attention" in (c.get("layer_types") or ()):
        raise WeightsError(
            f"config.json sets sliding_window={c.get('sliding_window')}: each token sees so many before it. The recipe "
            "has no such window: take a model with full attention."
        )
    read = (GPT2_READ if family == "gpt2" else LLAMA_READ) | {"vocab_size", "tie_word_embeddings"}
    for name, value in raw.items():
        if name in MUST_BE and value != MUST_BE[name]:
            raise _no_counterpart(name, value)
        known = name in read | OF_NO_CONSEQUENCE or name in MUST_BE or name.startswith("_")
        if not known and value not in (None, False, [], {}):
            raise _no_counterpart(name, value)


def _no_counterpart(name: str, value) -> WeightsError:
    return WeightsError(
        f"config.json sets {name}={value!r}, which the recipe has no counterpart for: the model would give other "
        "numbers here. Take a model without it."
    )


# ---- recipe → config.json ----------------------------------------------------------------------------------------
def config_of(recipe: Recipe, vocabulary: int, end_of_text: int | None) -> dict:
    """The config.json with which transformers builds the recipe's model.

    Raises:
        WeightsError: no family of transformers has this architecture; what stands in the way is named.
    """
    m = recipe.model
    family = family_of(recipe)
    dtype = next(theirs for theirs, ours in DTYPES.items() if ours == recipe.precision.dtype)
    shared = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": vocabulary,
        "tie_word_embeddings": m.tied_embeddings,
        "initializer_range": m.init_method_std,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": dtype,
        "torch_dtype": dtype,  # its name before transformers 5
    }
    if family == "gpt2":
        return shared | {
            "n_layer": m.num_layers,
            "n_embd": m.hidden_size,
            "n_head": m.num_attention_heads,
            "n_inner": m.ffn_size,
            "n_positions": m.positions,
            "activation_function": "gelu" if EXACT_GELU in recipe.extra_flags else "gelu_new",
            "layer_norm_epsilon": m.norm_epsilon,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), m.dropout),
        }
    scaling = None
    if m.rope_scaling_factor is not None:
        scaling = {"rope_type": "llama3", "factor": m.rope_scaling_factor, **LLAMA_31}
    experts = {"num_local_experts": m.num_experts, "num_experts_per_tok": m.moe_router_topk, "sliding_window": None}
    return (
        shared
        | {
            "num_hidden_layers": m.num_layers,
            "hidden_size": m.hidden_size,
            "intermediate_size": m.ffn_size,
            "num_attention_heads": m.num_attention_heads,
            "num_key_value_heads": m.query_groups,
            "head_dim": m.head_size,
            "hidden_act": "silu",
            "rms_norm_eps": m.norm_epsilon,
            "max_position_embeddings": m.positions,
            "attention_dropout": m.dropout,
            "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": float(m.rotary_base)},
            "rope_theta": float(m.rotary_base),  # these two are what transformers before 5, vLLM and llama.cpp read
            "rope_scaling": scaling,
        }
        | ({"attention_bias": m.linear_bias, "mlp_bias": m.linear_bias} if family == "llama" else {})
        | (experts if family == "mixtral" else {})
    )


def family_of(recipe: Recipe) -> str:
    """The family whose code computes the same as Megatron with this recipe."""
    m = recipe.model
    gpt2 = {
        "activation": "gelu", "normalization": "LayerNorm", "position_embedding": "learned_absolute",
        "linear_bias": True, "num_query_groups": None, "num_experts": None, "kv_channels": None, "qkv_bias": False,
    }  # fmt: skip
    llama = {"activation": "swiglu", "normalization": "RMSNorm", "position_embedding": "rope"}
    family = "gpt2" if m.activation == "gelu" else "llama"
    if m.activation != "gelu" and m.num_experts is not None:
        family, llama = "mixtral", llama | {"linear_bias": False, "qkv_bias": False}
    elif m.activation != "gelu" and m.qkv_bias and not m.linear_bias:
        family = "qwen2"
    if m.hidden_size % m.num_attention_heads:
        raise WeightsError(
            f"transformers wants hidden_size to be a multiple of the heads, and {m.hidden_size} is none of "
            f"{m.num_attention_heads}. Such a model stays with Megatron."
        )
    wanted = gpt2 if family == "gpt2" else llama
    wrong = [(name, value) for name, value in wanted.items() if getattr(m, name) != value]
    if wrong:
        has = " and ".join(f"{name}={getattr(m, name)!r}" for name, _ in wrong)
        needs = " and ".join(f"{name}={value!r}" for name, value in wrong)
        raise WeightsError(
            f"The nearest model that transformers has is {ARCHITECTURES[family]}, and it has {needs}; this recipe has "
            f"{has}. Such a model stays with Megatron."
        )
    return family
