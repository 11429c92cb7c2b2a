"""Every rank of a real job tells what it holds after some steps. torchrun runs this, with the flags of a run."""

from helpers.ranks import one_rank
from helpers.ranks.repairs import table

if __name__ == "__main__":
    table.apply()
    from helpers.ranks import pretrain_gpt

    one_rank.watch_steps(warm_up=0, profiled=0)
    pretrain_gpt.main()
