"""Resuming a run of the distributed optimizer where AdamW is torch's own.

With Transformer Engine or apex installed Megatron takes their fused Adam. Without both (a CPU, or a GPU with
neither) it takes `torch.optim.AdamW`, and loading its state with `--use-distributed-optimizer` stops in
megatron-core 0.19 (`optimizer/distrib_optimizer.py`). `apply` mends the three places, and then a resumed
run's losses are those of the uninterrupted one, bit for bit. With a fused Adam it does nothing.
"""

import functools

import torch


def apply() -> None:
    """Mend `DistributedOptimizer` for torch's AdamW, in this process. A second call changes nothing."""
    from megatron.core.optimizer import distrib_optimizer

    optimizer_class = distrib_optimizer.DistributedOptimizer
    if distrib_optimizer.HAVE_APEX_OR_TE or hasattr(optimizer_class.state_dict, "__wrapped__"):
        return
    state_dict, load_state_dict = optimizer_class.state_dict, optimizer_class.load_state_dict
    set_states = optimizer_class._set_main_param_and_optimizer_states

    @functools.wraps(state_dict)
    def with_a_state(self):
        """Before its first step torch's AdamW has no state, but Megatron reads the step count from it: start at 0."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if not self.optimizer.state[parameter]:
                    moments = {name: torch.zeros_like(parameter) for name in self.optimizer_state_keys}
                    self.optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
        return state_dict(self)

    @functools.wraps(load_state_dict)
    def with_own_step_counts(self, loaded):
        """Megatron gives all parameters one tensor as their step count; AdamW would add 1 to it for each of them."""
        load_state_dict(self, loaded)
        for state in self.optimizer.state.values():
            state["step"] = state["step"].clone()

    @torch.no_grad()
    @functools.wraps(set_states)
    def without_the_step_count(self, model_param, tensors):
        """The step count is loaded by then, from the parameter groups; what `tensors` says of it is a stand-in."""
        set_states(self, model_param, {**tensors, "step": None})

    optimizer_class.state_dict = with_a_state
    optimizer_class.load_state_dict = with_own_step_counts
    optimizer_class._set_main_param_and_optimizer_states = without_the_step_count
