"""Attention on CPU ranks: windows, given masks and packed documents mean on two ranks what they mean on one."""

import json

import pytest
import real_runs
from real_runs import largest_difference, train, words

ROUNDING = 1.5e-6  # three units in the last place of a float32 loss near 5
PROGRAM = """
import json, torch
from helpers.ranks.cpu import device
device.switch_on()
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
HEADS, WIDTH = 4, 8

def config(context_parallel=1, **settings):
    return TransformerConfig(
        num_layers=1, hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, attention_dropout=0.0,
        use_cpu_initialization=True, context_parallel_size=context_parallel, **settings,
    )

def attention(mask_type=AttnMaskType.causal, widths={}, **settings):
    return DotProductAttention(config(**settings), 1, mask_type, "self", **widths)

def attend(module, parts, mask=None, **options):
    "The output and the gradients of queries, keys and values."
    parts = [part.detach().clone().requires_grad_() for part in parts]
    output = module(*parts, mask, **options)
    (output.reshape(len(output), -1) ** 2).sum().backward()
    return [output.reshape(len(output), -1).detach(), *(part.grad for part in parts)]

def difference(these, those):
    return max((a.reshape(b.shape) - b).abs().max().item() for a, b in zip(these, those, strict=True))

LENGTH = 16
mine = torch.cat([torch.arange(0, 4), torch.arange(12, 16)]) if rank == 0 else torch.arange(4, 12)
torch.manual_seed(1)
draw = lambda samples, heads, width: torch.randn(LENGTH, samples, heads, width)
qkv = [draw(2, HEADS, WIDTH) for _ in range(3)]
given = (torch.rand(2, 1, LENGTH, LENGTH) < 0.4) & ~torch.eye(LENGTH, dtype=torch.bool)
grouped = [qkv[0], draw(2, 2, WIDTH), draw(2, 2, WIDTH)]
latent = [draw(2, HEADS, 12), draw(2, HEADS, 12), draw(2, HEADS, 6)]
widths = {"k_channels": 12, "v_channels": 6}
found = {}

parallel_state.initialize_model_parallel(context_parallel_size=2)
model_parallel_cuda_manual_seed(1)
for name, parts, mask, options in (
    ("causal", qkv, None, {}),
    ("window", qkv, None, {"window_size": (5, 0)}),
    ("given mask", qkv, given, {}),
    ("a window instead of a given mask", qkv, given, {"window_size": (5, 0)}),
    ("no mask at all", qkv, None, {"mask_type": AttnMaskType.no_mask}),
    ("grouped queries", grouped, given, {"num_query_groups": 2}),
    ("latent heads", latent, None, {"widths": widths}),
):
    one = attend(attention(**options), parts, mask)
    rows = None if mask is None else mask[:, :, mine]
    two = attend(attention(context_parallel=2, **options), [part[mine] for part in parts], rows)
    found[name] = difference(two, [part[mine] for part in one])

starts = torch.tensor([0, 5, 11, LENGTH], dtype=torch.int32)
packed = PackedSeqParams(qkv_format="thd", cu_seqlens_q=starts, cu_seqlens_kv=starts)
for name, options in ("packed documents", {}), ("packed documents under a window", {"window_size": (3, 0)}):
    one = [p[:, :1] for p in qkv]
    alone = [attend(attention(**options), [p[a:b] for p in one]) for a, b in zip(starts, starts[1:])]
    alone = [torch.cat(parts) for parts in zip(*alone)]
    flat = [p.squeeze(1) for p in one]  # Megatron gives packed samples without the dimension of the batch
    found[name] = difference(attend(attention(**options), flat, packed_seq_params=packed), alone)
    two = attend(attention(context_parallel=2, **options), [p[mine] for p in flat], packed_seq_params=packed)
    found[name + ", two ranks"] = difference(two, [part[mine] for part in alone])

parallel_state.destroy_model_parallel()
parallel_state.initialize_model_parallel(tensor_model_parallel_size=2)
learnable = config(softmax_type="learnable", tensor_model_parallel_size=2)
torch.manual_seed(7)
whole, then = learnable.init_method(torch.empty(HEADS)), torch.rand(1)
torch.manual_seed(7)
built = DotProductAttention(learnable, 1, AttnMaskType.causal, "self")
found["learnable offset"] = difference([built.softmax_offset], [whole.chunk(2)[rank]])
found["what is drawn after it"] = difference([torch.rand(1)], [then])
every = [None, None]
torch.distributed.all_gather_object(every, found)
if rank == 0:
    print(json.dumps(every), flush=True)
torch.distributed.destroy_process_group()
"""
CASES = (
    "causal",
    "window",
    "given mask",
    "a window instead of a given mask",
    "no mask at all",
    "grouped queries",
    "latent heads",
    "packed documents",
    "packed documents, two ranks",
    "packed documents under a window",
    "packed documents under a window, two ranks",
    "learnable offset",
    "what is drawn after it",
)


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    """The largest differences that each of two ranks finds to one rank, in outputs and gradients."""
    script = tmp_path_factory.mktemp("attention") / "attention.py"
    script.write_text(PROGRAM)
    printed = real_runs.run(2, script)
    return json.loads(next(line for line in printed.splitlines() if line.startswith("[{")))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_attend_as_one(differences, case):
    assert max(found[case] for found in differences) <= 1e-5  # sums in another order; another mask makes 0.01 and more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    real_runs.write_corpus(folder)
    return folder


@pytest.mark.train
def test_training_under_a_window_and_a_given_mask(folder):
    """The first layer has a window, the second the mask of a data loader that ends at documents."""
    flags = words("--num-layers 2 --window-size 16,0 --window-attn-skip-freq 2 --reset-attention-mask")
    one = train(folder, "one", 1, *flags)
    two = train(folder, "two", 2, *flags, "--context-parallel-size", "2")
    assert len(two) == real_runs.STEPS
    assert largest_difference(two, one) <= ROUNDING
