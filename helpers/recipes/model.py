"""The part of a recipe that says what is trained: a decoder-only transformer, and its Megatron flags."""

from dataclasses import dataclass

from helpers.recipes.flag import Flag
from helpers.recipes.names import told


@told
@dataclass(frozen=True)
class Model:
    """A decoder-only transformer. Sizes in elements; `vocab_size` counts the embedding's rows, padding included.

    What only published models need: `kv_channels` is the size of a head that is not hidden_size / heads,
    `max_positions` the longest sequence the model can place where training takes shorter ones, `qkv_bias` gives biases
    to queries, keys and values alone (Qwen2), and `rope_scaling_factor` stretches the slow rotations as Llama 3.1 does.
    """

    IN_WORDS = "a model, such as recipe.model"

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    sequence_length: int
    vocab_size: int
    ffn_hidden_size: int | None = None
    num_query_groups: int | None = None
    normalization: str = "LayerNorm"
    activation: str = "gelu"
    position_embedding: str = "learned_absolute"
    rotary_base: int = 10000
    tied_embeddings: bool = True
    linear_bias: bool = True
    dropout: float = 0.1
    init_method_std: float = 0.02
    use_cpu_initialization: bool = False
    num_experts: int | None = None
    moe_router_topk: int = 2
    kv_channels: int | None = None
    max_positions: int | None = None
    norm_epsilon: float = 1e-5
    qkv_bias: bool = False
    rope_scaling_factor: float | None = None

    @property
    def ffn_size(self) -> int:
        """Width of the MLP's hidden layer; Megatron's default is 4 × hidden, and 8/3 × hidden in 64s with SwiGLU."""
        if self.ffn_hidden_size is not None:
            return self.ffn_hidden_size
        return int((4 * self.hidden_size * 2 / 3) / 64) * 64 if self.activation == "swiglu" else 4 * self.hidden_size

    @property
    def query_groups(self) -> int:
        return self.num_query_groups or self.num_attention_heads

    @property
    def head_size(self) -> int:
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    @property
    def positions(self) -> int:
        """The longest sequence the model can place; with learned positions, the rows of their embedding."""
        return self.max_positions or self.sequence_length

    def flags(self) -> list[Flag]:
        flags = [
            Flag("--num-layers", str(self.num_layers), "transformer layers"),
            Flag("--hidden-size", str(self.hidden_size), "width of the residual stream"),
            Flag("--num-attention-heads", str(self.num_attention_heads), "query heads a layer"),
            Flag("--seq-length", str(self.sequence_length), "tokens in one training sample"),
            Flag("--max-position-embeddings", str(self.positions), "longest sequence the model can place"),
            Flag("--padded-vocab-size", str(self.vocab_size), "rows of the embedding, the same for every layout"),
            Flag("--position-embedding-type", self.position_embedding, "how a token knows where it stands"),
            Flag("--normalization", self.normalization, "what keeps each layer's input at one scale"),
            Flag("--attention-dropout", str(self.dropout), "attention weights dropped at random"),
            Flag("--hidden-dropout", str(self.dropout), "residual entries dropped at random"),
            Flag("--init-method-std", str(self.init_method_std), "spread of the first weights"),
        ]
        if self.ffn_hidden_size is not None:
            flags.append(Flag("--ffn-hidden-size", str(self.ffn_hidden_size), "width of the MLP"))
        if self.num_query_groups is not None:
            flags.append(Flag("--group-query-attention", None, "several query heads share one key and value head"))
            flags.append(Flag("--num-query-groups", str(self.num_query_groups), "key and value heads a layer"))
        if self.kv_channels is not None:
            flags.append(Flag("--kv-channels", str(self.kv_channels), "size of a head, not hidden size / heads"))
        if self.norm_epsilon != 1e-5:
            flags.append(Flag("--norm-epsilon", f"{self.norm_epsilon:g}", "added to what a norm divides by"))
        if self.position_embedding == "rope":
            flags.append(Flag("--rotary-base", str(self.rotary_base), "slowest rotation: how far apart is still told"))
        if self.rope_scaling_factor is not None:
            why = "slow rotations turn slower still, as in Llama 3.1"
            flags.append(Flag("--use-rope-scaling", None, why))
            flags.append(Flag("--rope-scaling-factor", f"{self.rope_scaling_factor:g}", "by so many times"))
        if self.activation == "swiglu":
            flags.append(Flag("--swiglu", None, "gated MLP: three matrices, not two"))
        if not self.tied_embeddings:
            flags.append(
                Flag("--untie-embeddings-and-output-weights", None, "the output layer has a matrix of its own")
            )
        if not self.linear_bias:
            flags.append(Flag("--disable-bias-linear", None, "no bias vectors"))
        if self.qkv_bias:
            flags.append(Flag("--add-qkv-bias", None, "but for those of queries, keys and values"))
        if self.use_cpu_initialization:
            flags.append(Flag("--use-cpu-initialization", None, "the same first weights for every layout"))
        if self.num_experts is not None:
            flags += [
                Flag("--num-experts", str(self.num_experts), "MLPs a layer to choose from"),
                Flag("--moe-router-topk", str(self.moe_router_topk), "experts each token visits"),
                Flag("--moe-token-dispatcher-type", "alltoall", "tokens travel to the ranks of their experts"),
                Flag("--moe-aux-loss-coeff", "0.01", "a small loss keeps the experts evenly used"),
            ]
            if self.linear_bias:
                why = "that kernel cannot weigh an expert's biased output by the router's probability"
                flags.append(Flag(f"--no-bias-{self.activation}-fusion", None, why))
        return flags
