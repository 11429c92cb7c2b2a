"""Which loss kernel a run gets, and that Transformer Engine's computes the same loss and gradient."""

import pytest
import torch
from machines import TWO_H200
from records import DATA

from helpers import recipes
from helpers.machine import CPU, Machine
from helpers.ranks.repairs import loss_kernel as repair
from helpers.recipes.command import loss_kernel

RECIPE = recipes.gpt3_345m().with_(stock=False)
WITHOUT_TE = Machine(gpus=TWO_H200.gpus)


@pytest.mark.parametrize(
    "recipe, machine, entry_script, kernel",
    [
        (RECIPE, TWO_H200, None, "te"),
        (RECIPE, CPU, None, None),
        (RECIPE, WITHOUT_TE, None, "native"),
        (RECIPE, TWO_H200, "pretrain_gpt.py", "native"),
        (RECIPE.with_(dtype="fp16"), TWO_H200, None, "native"),
        (RECIPE.with_(cross_entropy_fusion=None), WITHOUT_TE, None, None),
        (RECIPE.with_(extra_flags=("--deterministic-mode",)), TWO_H200, None, None),
    ],
)
def test_transformer_engines_kernel_where_it_can_be_had(recipe, machine, entry_script, kernel):
    assert loss_kernel(recipe, machine, entry_script) == kernel
    words = recipe.command(DATA, machine, entry_script=entry_script).argv
    given = [words[i + 1] for i, word in enumerate(words) if word == "--cross-entropy-fusion-impl"]
    assert given == (["native"] if kernel else [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Transformer Engine's kernel runs on a GPU")
def test_loss_and_gradient_are_those_of_fp32(monkeypatch):
    from megatron.core.models.common.language_module import language_module

    monkeypatch.setattr(language_module, "fused_vocab_parallel_cross_entropy", None)
    repair.apply()

    torch.manual_seed(0)
    logits = torch.randn(1024, 2, 50304, device="cuda", dtype=torch.bfloat16) * 4
    labels = torch.randint(50304, (1024, 2), device="cuda")
    weight = torch.rand(1024, 2, device="cuda")
    exact = logits.float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact.flatten(0, 1), labels.flatten(), reduction="none").view(1024, 2)
    (expected * weight).sum().backward()
    given = logits.clone().requires_grad_()
    loss = language_module.fused_vocab_parallel_cross_entropy(given * 1, labels, None)
    (loss * weight).sum().backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given.grad, exact.grad.bfloat16(), rtol=2**-7, atol=1e-9)
