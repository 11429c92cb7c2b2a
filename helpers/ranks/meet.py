"""Ranks that meet and add up their numbers once: the smallest program that needs the network between them."""

import os
from datetime import timedelta

import torch
from torch import distributed

SECONDS = 20  # until those who do not find each other say so

if __name__ == "__main__":
    distributed.init_process_group("gloo", timeout=timedelta(seconds=SECONDS))
    added = torch.tensor([distributed.get_rank() + 1.0])
    distributed.all_reduce(added)
    print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}: the sum is {added.item():.0f}", flush=True)
    distributed.destroy_process_group()
