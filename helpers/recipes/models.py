"""The tour's models."""

from dataclasses import replace

from helpers.recipes.layout import Layout
from helpers.recipes.recipe import Recipe
from helpers.recipes.settings import Batch, Checkpoints, Model, Precision, Schedule, Speed

GPT2_ROWS = 50304  # 50,257 tokens, padded to a multiple of 128
LLAMA3_ROWS = 128256


def _gpt(num_layers: int, hidden_size: int, num_attention_heads: int, sequence_length: int) -> Model:
    return Model(num_layers, hidden_size, num_attention_heads, sequence_length, vocab_size=GPT2_ROWS)


def gpt3_345m() -> Recipe:
    """GPT-3's medium model, 24 × 1024 × 16: 354,871,296 parameters (Brown et al. 2020, table 2.1, "350M")."""
    return Recipe(
        name="gpt3_345m",
        model=_gpt(24, 1024, 16, 1024),
        speed=Speed(cross_entropy_fusion="te", cuda_graph=True),
        batch=Batch(micro_batch_size=32, global_batch_size=32),
        schedule=Schedule(train_iters=100, lr=3e-4, min_lr=3e-5, eval_interval=100),
        checkpoints=Checkpoints(save_interval=100),
    )


def gpt3_857m() -> Recipe:
    """A GPT of 854 million parameters: GPT-2 Large's width (1280, 20 heads) with 40 layers, sequence 2048."""
    return Recipe(
        name="gpt3_857m",
        model=_gpt(40, 1280, 20, 2048),
        batch=Batch(micro_batch_size=8, global_batch_size=16),
        schedule=Schedule(train_iters=200, lr=2.5e-4, min_lr=2.5e-5, eval_interval=200),
        checkpoints=Checkpoints(save_interval=200),
    )


def upstream_345m_label() -> Recipe:
    """What Megatron-LM's `examples/gpt3/README.md` calls 345M: 12 × 512 × 8. Count it: it is 64 million."""
    return replace(gpt3_345m(), name="upstream_345m_label", model=_gpt(12, 512, 8, 1024))


def llama3_8b() -> Recipe:
    """Llama-3 8B (Dubey et al. 2024, "The Llama 3 Herd of Models", table 3) in FP8.

    The Llama-3 tokenizer is gated: GPT-2's token ids stand in the 128,256 rows, which costs the same. The learning rate
    climbs by 2e-7 a step, gently, and still 40 times as steeply as in NVIDIA's script (1.5e-4 over 30,517 steps).
    At 2.5e-6 a step the loss jumps to 18 on its way.
    """
    return Recipe(
        name="llama3_8b",
        model=Model(
            num_layers=32,
            hidden_size=4096,
            num_attention_heads=32,
            sequence_length=8192,
            vocab_size=LLAMA3_ROWS,
            ffn_hidden_size=14336,
            num_query_groups=8,
            normalization="RMSNorm",
            activation="swiglu",
            position_embedding="rope",
            rotary_base=500000,
            tied_embeddings=False,
            linear_bias=False,
            dropout=0.0,
        ),
        layout=Layout(distributed_optimizer=True),
        precision=Precision(
            dtype="bf16",
            fp8_format="hybrid",
            fp8_recipe="tensorwise",
            fp8_param_gather=True,
            grad_reduce_in_bf16=True,
            moments_in_bf16=True,
        ),
        speed=Speed(cross_entropy_fusion="te", cuda_graph=True, overlap_communication=True),
        batch=Batch(micro_batch_size=1, global_batch_size=8),
        schedule=Schedule(train_iters=100, lr=1e-5, min_lr=1e-6, lr_warmup_iters=50, eval_interval=100),
    )


def llama3_70b() -> Recipe:
    """Llama-3 70B (Dubey et al. 2024, table 3), in the settings of `llama3_8b`: `planner.best` lays it out."""
    return _larger_llama("llama3_70b", num_layers=80, hidden_size=8192, num_attention_heads=64, ffn_hidden_size=28672)


def llama3_405b() -> Recipe:
    """Llama-3.1 405B (Dubey et al. 2024, table 3), in the settings of `llama3_8b`: `planner.best` lays it out."""
    return _larger_llama(
        "llama3_405b", num_layers=126, hidden_size=16384, num_attention_heads=128, ffn_hidden_size=53248
    )


def _larger_llama(name: str, **sizes: int) -> Recipe:
    return replace(llama3_8b(), name=name).with_(**sizes)
