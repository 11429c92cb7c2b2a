"""Keep what one layer's matrix products are made of: weights, inputs and gradients of two real training steps.

    torchrun --nproc-per-node 1 helpers/ranks/layer_tensors.py tensors.pt <flags of a training run>

Trains as `pretrain_gpt.py` does, with the run's own flags, model and data, and listens to the last layer's linear
modules whose input is the same under every implementation (Transformer Engine fuses the norm into the two others).
Rank 0 writes `tensors.pt`: layer → list of steps → weight [out, in], activation [tokens, in], gradient of the output
[tokens, out].
With tensor parallelism these are rank 0's slices.
"""

import os
import sys

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()  # before torch and Megatron are imported

import torch

from helpers.ranks import pretrain_gpt

LISTENED_TO = {"linear_proj": "self_attention", "linear_fc2": "mlp"}
STEPS = 2
MAX_TOKENS = 4096  # rows kept of one activation

kept = {name: [] for name in LISTENED_TO}


def listen(layer: torch.nn.Module) -> None:
    """Keep the tensors of this layer's linear modules, once a step: its first micro-batch."""
    for name, part in LISTENED_TO.items():
        getattr(getattr(layer, part), name).register_forward_hook(keeper(kept[name]))


def keeper(steps: list[dict]):
    def keep(module, inputs, output):
        if not module.training or not torch.is_grad_enabled() or len(steps) > step():
            return
        tensors = {"weight": copy(module.weight), "activation": copy(inputs[0].flatten(0, 1))}
        steps.append(tensors)
        product = output[0] if isinstance(output, tuple) else output
        product.register_hook(lambda gradient: tensors.update(gradient=copy(gradient.flatten(0, 1))))

    return keep


def copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach()[:MAX_TOKENS].float().cpu().clone()


def step() -> int:
    """Optimizer steps taken so far."""
    return pretrain_gpt.get_args().curr_iteration


def main() -> None:
    path = sys.argv.pop(1)
    forward_step = pretrain_gpt.forward_step
    models = []

    def listening_forward_step(data_iterator, model, *rest):
        if not models:
            models.append(model)
            listen(pretrain_gpt.get_attr_wrapped_model(model, "decoder").layers[-1])
        return forward_step(data_iterator, model, *rest)

    pretrain_gpt.forward_step = listening_forward_step
    try:
        pretrain_gpt.main()
    finally:
        if os.environ["RANK"] == "0":
            torch.save(kept, path)


if __name__ == "__main__":
    main()
