"""Speeds that others have measured and published, to stand beside ours: never our own, each with its source."""

from dataclasses import dataclass

from helpers.recipes.settings import Model

# Step times in ms by global batch and tensor-parallel size, sequence 1024, bf16, 8 × H100 80 GB, without sequence
# parallelism: github.com/vuiseng9/megatron-tutorials, 02-tp-sp.md, rows R1 to R8 (weak) and R11 to R18 (strong).
TUTORIALS = "github.com/vuiseng9/megatron-tutorials"
TUTORIALS_GPUS = "8 × H100"
STRONG_STEP_MS = {20: {1: 390, 2: 259, 4: 207, 8: 207}, 8: {1: 210, 2: 200, 4: 200, 8: 205}}
WEAK_STEP_MS = {20: {1: 400, 2: 475, 4: 450, 8: 512}, 8: {1: 209, 2: 273, 4: 310, 8: 329}}

# Shoeybi et al. 2019 (arXiv 1909.08053), batch 8, V100 32 GB: speed-up of the 1.2B model (table 8) and weak scaling of
# the models below (figure 5, "model parallel"), by number of GPUs.
PAPER = "Shoeybi et al. 2019"
PAPER_GPUS = "V100"
PAPER_BATCH = 8
PAPER_SPEED_UP = {1: 1.0, 2: 1.64, 4: 2.34, 8: 2.98}
PAPER_WEAK_EFFICIENCY = {1: 1.0, 2: 0.95, 4: 0.82, 8: 0.77}

# The models of both, by number of GPUs (table 1 of the paper): 1.2B, 2.5B, 4.2B and 8.3B parameters.
WEAK_SIZES = {1: (40, 1536, 16), 2: (54, 1920, 20), 4: (64, 2304, 24), 8: (72, 3072, 32)}
WEAK_MODELS = {
    gpus: Model(num_layers, hidden_size, num_attention_heads, sequence_length=1024, vocab_size=50304)
    for gpus, (num_layers, hidden_size, num_attention_heads) in WEAK_SIZES.items()
}


@dataclass(frozen=True)
class PublishedSpeed:
    """Tokens a second on one GPU of a machine, with the layout it was measured in."""

    precision: str
    tokens_per_second_per_gpu: int
    gpus: str
    layout: str
    global_batch_size: int
    source: str


# NVIDIA's own, Llama3-8B pre-training at sequence 8192. DGX Cloud Benchmarking writes tokens a second of all eight
# GPUs (85,459 and 112,388); Megatron-Bridge writes them per GPU.
LLAMA3_8B = (
    PublishedSpeed("bf16", 10682, "8 × H100", "CP2×DP4", 128, "DGX Cloud 25.04"),
    PublishedSpeed("FP8", 14048, "8 × H100", "CP2×DP4", 128, "DGX Cloud 25.04"),
    PublishedSpeed("FP8 current scaling", 14451, "8 × H100", "DP8, FSDP", 128, "Megatron-Bridge 25.11"),
)
