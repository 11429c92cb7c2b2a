"""What a rank on a CPU leaves out when it starts, and that whoever asks for it still gets it."""

import json
import subprocess
import sys

import real_runs

LEFT_OUT = ["sympy", "torch._decomp", "torch._refs", "torch.distributed.tensor._ops._conv_ops"]
STARTED = f"""
import json, sys
from helpers.ranks.repairs import table
table.apply()
import helpers.ranks.pretrain_gpt, torch
from megatron.training import argument_utils
imported = [name for name in {LEFT_OUT} if name in sys.modules]
described = argument_utils.ArgumentGroupFactory(argument_utils.TransformerConfig).field_docstrings
asked = torch._dynamo.is_compiling(), torch._meta_registrations.meta_index_Tensor.__module__
print(json.dumps([imported, len(described), asked, "torch._decomp" in sys.modules]))
"""
TOKENIZER = """
import json, sys
from helpers.ranks.cpu import tokenizer
tokenizer.leave_the_models_for_later()
import transformers
names = [len(transformers._class_to_module)]
auto = transformers.AutoTokenizer.__module__
names.append(len(transformers._class_to_module))
models = transformers.models.auto.__name__, transformers.LlamaConfig.__name__, transformers.models.llama.__name__
names.append(len(transformers._class_to_module))
try:
    transformers.NoSuchModel
except AttributeError as error:
    missing = str(error)
print(json.dumps([names, auto, models, missing]))
"""
PUT_OFF = """
import json, sys
from helpers.ranks import start
start.before_torch()
print(json.dumps(sorted(name for name in sys.modules if name.startswith("torch."))))
"""


def told(code: str, *arguments: str):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=real_runs.PROJECT, capture_output=True, text=True,
        env=real_runs.environment() | {"MEGATRON_CPU": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_rank_imports_what_it_uses_and_the_rest_when_it_is_asked_for():
    assert told(STARTED) == [[], 0, [False, "torch._meta_registrations"], True]


def test_transformers_reads_its_models_when_one_is_asked_for():
    (at_first, with_a_tokenizer, whole), auto, models, missing = told(TOKENIZER)
    assert at_first == with_a_tokenizer < whole / 3
    assert auto == "transformers.models.auto.tokenization_auto"
    assert models == ["transformers.models.auto", "LlamaConfig", "transformers.models.llama"]
    assert missing == "module transformers has no attribute NoSuchModel"


def test_fsdp_and_the_meta_device_get_all_of_torch():
    assert told(PUT_OFF) == ["torch._meta_registrations", "torch.distributed.tensor._ops"]
    for flag in ("--use-torch-fsdp2", "--use-megatron-fsdp", "--init-model-with-meta-device"):
        assert told(PUT_OFF, flag) == []
