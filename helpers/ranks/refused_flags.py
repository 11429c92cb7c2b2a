"""What `pretrain_gpt.py` is for, and the flags of other jobs that it leaves out."""

import sys

LEFT_OUT = {  # a flag, or the beginning of several: the job it belongs to
    "--sft": "supervised fine-tuning",
    "--fim-data": "fill-in-the-middle training",
    "--spec": "a model built from a layer specification of your own",
    "--logits-load-dir": "distillation from the saved logits of a teacher",
    "--logits-save-dir": "saving logits for distillation",
    "--export-": "ModelOpt (quantization, pruning, distillation)",
    "--modelopt-": "ModelOpt (quantization, pruning, distillation)",
    "--perform-rl-step": "reinforcement learning",
    "--hybrid-layer-pattern": "models that mix attention with state-space layers",
    "--yaml-cfg": "a configuration file instead of flags",
}


def job_of(argument: str) -> str | None:
    """The job that a flag (`--flag` or `--flag=value`) belongs to, if this script leaves it out."""
    flag = argument.split("=")[0]
    for name, job in LEFT_OUT.items():
        if flag == name or (name.endswith("-") and flag.startswith(name)):
            return job
    return None


def refuse_what_is_left_out(arguments: list[str]) -> None:
    """Stop the program, with words, if `arguments` ask for a job that this script leaves out."""
    for argument in arguments:
        if job := job_of(argument):
            sys.exit(
                f"{argument.split('=')[0]} asks for {job}. This script only pretrains GPT models. Take the flag out, "
                "or give your own clone of Megatron-LM as the entry script: its pretrain_gpt.py has it."
            )
