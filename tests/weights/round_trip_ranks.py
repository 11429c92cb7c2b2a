"""Several models, into Megatron's checkpoints and out again, in one launch: what torchrun runs for test_importing.py.

    torchrun --nproc-per-node 1 round_trip_ranks.py cases.json

`cases.json`: a list of {import, import_flags, export, export_flags}, as the two programs take them.
"""

import json
import sys
from pathlib import Path

from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()

import torch.distributed as dist
from megatron.training.training import destroy_global_state

from helpers.ranks import export_weights, import_weights

if __name__ == "__main__":
    for case in json.loads(Path(sys.argv.pop(1)).read_text()):
        sys.argv[1:] = case["import_flags"]
        import_weights.convert(case["import"])
        destroy_global_state()
        sys.argv[1:] = case["export_flags"]
        export_weights.write(case["export"])
        destroy_global_state()
    dist.destroy_process_group()
