"""Two launches compared flag by flag, the other one a recipe or a bash script that is read and never run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machines import ONE_H200

from helpers import recipes
from helpers.machine import CPU, PROJECT
from helpers.processes.run_directory import write_command
from helpers.recipes import launch_script, megatron_help

RECIPE = recipes.gpt3_345m()
SCRIPT = r"""#!/bin/bash
export CUDA_DEVICE_MAX_CONNECTIONS=1
GPUS=8   # on this node
HIDDEN=2048
DATA=$1
LOGS=${2:-/logs}
HOST=$(hostname -I | awk '{print $1}')
DISTRIBUTED_ARGS=(--nproc_per_node $GPUS --master_addr $HOST)

MODEL_ARGS=(
    --num-layers 48
    --hidden-size ${HIDDEN}
    --num-attention-heads "${HEADS:-32}"  # not --num-attention-heads 16
    --normalization=LayerNorm
)
TRAINING_ARGS="
    --micro-batch-size 4 \
    --lr 3.0e-4
    --fp16
"
MODEL_ARGS+=(--step-batch-size-schedule "0:16 1B:32")
if [ -n "$LOGS" ]; then
    OTHER='--tensorboard-dir '$LOGS/board
fi

torchrun ${DISTRIBUTED_ARGS[@]} pretrain_gpt.py \
    "${MODEL_ARGS[@]}" $TRAINING_ARGS \
    --data-path 0.5 $DATA/a 0.5 ${DATA}/b \
    $OTHER 2>&1 | tee $LOGS/log.txt
"""


def script(tmp_path: Path, text: str, name: str = "train.sh") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def started(tmp_path: Path, text: str) -> dict:
    return launch_script.read(script(tmp_path, text)).flags


def test_a_script_is_read_as_bash_would_expand_it(tmp_path):
    read = launch_script.read(script(tmp_path, SCRIPT))
    assert read.entry_script == "pretrain_gpt.py"
    assert read.flags == {
        "--num-layers": "48",
        "--hidden-size": "2048",
        "--num-attention-heads": "32",
        "--normalization": "LayerNorm",
        "--step-batch-size-schedule": "0:16 1B:32",
        "--micro-batch-size": "4",
        "--lr": "3.0e-4",
        "--fp16": None,
        "--data-path": "0.5 $DATA/a 0.5 ${DATA}/b",
        "--tensorboard-dir": "/logs/board",
    }


def test_bash_itself_expands_the_same_words(tmp_path):
    """With values for what only a shell knows; the flags that stand behind the entry script, word by word."""
    text = SCRIPT.replace("torchrun ${DISTRIBUTED_ARGS[@]}", "python -m json.tool >/dev/null </dev/null || show")
    shell = "show() { shift; printf '%s\\n' \"$@\"; }\n" + text.replace(" 2>&1 | tee $LOGS/log.txt", "")
    words = subprocess.run(["bash", "-c", shell, "me", "/data"], capture_output=True, text=True).stdout.splitlines()
    ours = launch_script._flags(words)
    assert ours == started(tmp_path, SCRIPT.replace("DATA=$1", "DATA=/data"))


@pytest.mark.parametrize(
    "line",
    [
        "python -m torch.distributed.run --nproc-per-node 2 train.py --lr 1",
        "CUDA_VISIBLE_DEVICES=0 uv run python3.12 -u train.py --lr 1",
        "exec /opt/bin/torchrun train.py --lr 1 >log.txt 2>err.txt &",
        'srun --mpi=pmix bash -x -c "cd /m; python train.py --lr 1"',
        "CMD='torchrun train.py --lr 1'\neval $CMD",
        'CMD="torchrun train.py --lr 1"\n$CMD',
        "if true; then\n  torchrun train.py --lr 1\nelse\n  torchrun train.py --lr 1\nfi",
        "python tools/preprocess_data.py --input x\ntorchrun train.py --lr 1",
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\ntorchrun $HERE/train.py --lr 1',
        "cat <<EOF >later.sh\ntorchrun train.py --lr 2\nEOF\ntorchrun train.py --lr 1",
        "cat <<'EOF' >later.sh\ntorchrun train.py --lr 1\nEOF\nsbatch later.sh",
        ": <<'NOTE'\ntorchrun train.py --lr 2\nNOTE\ntorchrun train.py --lr 1",
        "LR=1\nsbatch <<-EOF\n\ttorchrun train.py --lr $LR\n\tEOF\necho done",
        "# cat <<EOF\ntorchrun train.py --lr 1",
        "A=$((1 << shift))\ntorchrun train.py --lr 1",
        'FLAGS=(--lr\n  # not 2\n  1)\nrun() { torchrun train.py ${FLAGS[*]} "$@"; }',
    ],
)
def test_the_ways_to_start_a_training(tmp_path, line):
    assert started(tmp_path, line)["--lr"].split()[0] == "1"


def test_a_long_script_is_read_in_no_time(tmp_path):
    """Each comment once had the rest of the script copied."""
    begun = time.process_time()
    assert started(tmp_path, "# a comment\n" * 60_000 + "torchrun a.py --lr 1") == {"--lr": "1"}
    assert time.process_time() - begun < 5


def test_values_that_are_no_flags(tmp_path):
    flags = started(tmp_path, "python t.py --seed -1 --seed 2 --empty '' --x=\"a b\" --y $UNKNOWN --z `date +%s`")
    expected = {"--seed": "2", "--empty": "", "--x": "a b", "--y": "$UNKNOWN", "--z": "`date +%s`"}
    assert flags == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo hello", "starts no training. No line of it starts torchrun or python"),
        ('X=\'eval "$X"\'\neval "$X"\ntorchrun a.py --lr 1', "starts itself again without end"),
        ("A=xx\n" + "A=$A$A$A$A\n" * 25 + "torchrun a.py --lr $A", "A grows to more than 1,000,000 characters"),
        ("A=(x)\n" + 'A=("${A[@]}" "${A[@]}")\n' * 40 + "torchrun a.py --lr 1", "A grows to more than"),
        ("torchrun a.py --lr 1\ntorchrun a.py --lr 2", "several trainings, in lines 1 and 2"),
        ("torchrun a.py --lr 1\nbash <<EOF\n\ntorchrun a.py --lr 2\nEOF", "several trainings, in lines 1 and 4"),
        (": <<EOF\ntorchrun a.py --lr 2\nEOF", "starts no training"),
        ("#!/usr/bin/env python3\nprint()", "is a Python program. Give the bash script that starts it"),
        ("torchrun a.py \\\n --lr 1 --name 'mine", "line 2: the quote that opens there is never closed"),
    ],
)
def test_what_is_no_launch_script_is_told(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        RECIPE.diff(script(tmp_path, text))


def test_what_is_no_script_at_all_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist. Give the whole path of the bash script"):
        RECIPE.diff(tmp_path / "nothing.sh")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        RECIPE.diff(tmp_path)
    with pytest.raises(ValueError, match="is a Python program"):
        RECIPE.diff(script(tmp_path, "import torch", "pretrain_gpt.py"))
    with pytest.raises(ValueError, match="a path has at most"):
        RECIPE.diff("x" * 5000)
    with pytest.raises(ValueError, match="the home that ~ stands for is not known"):
        RECIPE.diff("~nobody_of_that_name/train.sh")
    (tmp_path / "binary.sh").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text"):
        RECIPE.diff(tmp_path / "binary.sh")
    with pytest.raises(TypeError, match="another recipe or with the path of a bash script, not with int"):
        RECIPE.diff(7)


def test_a_script_beside_a_recipe(tmp_path):
    table = RECIPE.diff(script(tmp_path, SCRIPT), machine=ONE_H200)
    assert table.columns.tolist() == ["gpt3_345m", "train.sh", "why"]
    rows = {flag: (group, *row) for (group, flag), row in zip(table.index, table.itertuples(index=False), strict=True)}
    assert rows["--num-layers"] == ("model", "24", "48", "transformer layers")
    assert rows["--bf16"][:3] == ("precision", "on", "–")
    group, ours, theirs, why = rows["--fp16"]
    assert (group, ours, theirs) == ("precision", "–", "on") and "fp16 mixed precision" in why
    assert rows["--log-interval"][1:3] == ("1", "– (100)"), "Megatron's default, where the script says nothing"
    assert rows["--step-batch-size-schedule"][0] == "batch and schedule"
    same = {"--lr", "--normalization", "--tensorboard-dir", "--data-path", "--attention-dropout"}
    assert not same & rows.keys(), "another spelling, a run's own folder, a corpus, Megatron's default: no differences"


def test_a_flag_that_megatron_does_not_know_is_told(tmp_path):
    table = RECIPE.diff(script(tmp_path, "torchrun t.py --num-layer 24"), machine=ONE_H200)
    assert "does not know this flag" in table.loc[("your own", "--num-layer"), "why"]


@pytest.mark.parametrize(("machine", "wandb"), [(CPU, None), (ONE_H200, "mine")])
def test_a_recipe_differs_in_nothing_from_its_own_command(tmp_path, small_corpus, machine, wandb):
    recipe = RECIPE.scaled_to(machine).with_(save_interval=50, wandb_project=wandb)
    command = recipe.command(small_corpus, machine, run_directory=tmp_path)
    written = write_command(tmp_path, recipe.name, command.program, command.environment, command.groups)
    for data in (small_corpus, None):
        assert "differ in no flag" in str(recipe.diff(written, data, machine))
    other = recipe.with_(num_layers=3).diff(written, small_corpus, machine)
    assert other.index.tolist() == [("model", "--num-layers")]


def test_two_recipes_side_by_side():
    table = RECIPE.diff(recipes.llama3_8b(), machine=ONE_H200, group="model")
    assert table.columns.tolist() == ["gpt3_345m", "llama3_8b", "why"] and table.index.name == "flag"
    assert table.loc["--num-layers"].tolist()[:2] == ["24", "32"]
    assert table.loc["--swiglu"].tolist()[:2] == ["–", "on"]
    assert "--init-method-std" not in table.index, "the same in both"
    assert RECIPE.diff(RECIPE.with_(lr=1)).columns.tolist()[:2] == ["gpt3_345m", "gpt3_345m (other)"]
    assert str(RECIPE.diff(RECIPE)) == "gpt3_345m and gpt3_345m (other) differ in no flag."


ASK = """
import json
from helpers.ranks.cpu import device
from megatron.training.arguments import add_megatron_arguments
import argparse
parser = add_megatron_arguments(argparse.ArgumentParser())
print(json.dumps([name for action in parser._actions for name in action.option_strings]))
"""


def test_every_flag_of_the_installed_megatron_is_known():
    """And of those that recipes give, none without a word of help."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=PROJECT, env=os.environ | {"MEGATRON_CPU": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    flags = [name for name in json.loads(done.stdout.splitlines()[-1]) if name.startswith("--") and name != "--help"]
    assert len(flags) > 300
    assert not [name for name in flags if megatron_help.of(name) is None]
    assert megatron_help.of("--rubbish") is None
    assert megatron_help.of("--seed").default == "1234"


@pytest.mark.skipif("MEGATRON_LM" not in os.environ, reason="MEGATRON_LM names no clone of Megatron-LM")
def test_nvidias_own_175b_script(tmp_path):
    path = Path(os.environ["MEGATRON_LM"]) / "examples" / "gpt3" / "train_gpt3_175b_distributed.sh"
    table = RECIPE.diff(path, machine=ONE_H200)
    theirs = table[path.name]
    assert theirs[("parallelism", "--tensor-model-parallel-size")] == "8"
    assert theirs[("data", "--split")] == "949,50,1" and theirs[("precision", "--fp16")] == "on"
    assert not table["why"].str.contains("does not know").any() and (table["why"] != "").all()


def test_a_script_with_latin1_in_a_comment_is_read(tmp_path):
    (tmp_path / "train.sh").write_bytes("# Schönes Training\ntorchrun a.py --lr 1\n".encode("latin-1"))
    assert launch_script.read(tmp_path / "train.sh").flags == {"--lr": "1"}
