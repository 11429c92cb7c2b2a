"""Saving and loading a run of Megatron's FSDP.

A rank keeps an even share of each group of parameters, and so nothing at all of some of them. Adam has no state for
those, and each rank lists what it has: the lists differ, and one rank waits forever for the other's next entry
(megatron-core 0.19, `optimizer/distrib_optimizer.py`). Megatron's `fully_shard` fills the list with empty entries; the
training loop takes another way and does not. `apply` does so there, too.
"""

import copy
import functools
import sys

import torch


def apply() -> None:
    """Let every rank list every parameter's state, in this process. A second call changes nothing."""
    if "--use-megatron-fsdp" not in sys.argv:  # what it imports takes two seconds
        return
    from megatron.core.optimizer import distrib_optimizer
    from torch.distributed.tensor import DTensor

    optimizer_class = distrib_optimizer.DistributedOptimizer
    of_its_own = optimizer_class.sharded_param_state_fsdp_dtensor
    if hasattr(of_its_own, "__wrapped__"):
        return

    @functools.wraps(of_its_own)
    def of_all(self, is_loading=False):
        """Of each parameter its state; where this rank has none of it, one of 0 elements, cut as the parameter is."""
        listed = of_its_own(self, is_loading)
        alike = next(iter(listed["state"].values()), dict.fromkeys(self.optimizer_state_keys, DTensor))
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if self._param_name(parameter) not in listed["state"]:
                    nothing = torch.zeros_like(parameter)
                    listed["state"][self._param_name(parameter)] = {
                        name: nothing.clone() if value is DTensor or isinstance(value, DTensor) else copy.copy(value)
                        for name, value in alike.items()
                    }
        return listed

    optimizer_class.sharded_param_state_fsdp_dtensor = of_all
