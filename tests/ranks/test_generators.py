"""Megatron's text generation runs on a CPU, where its sampling asks for a generator of a GPU."""

import json

import real_runs

PROGRAM = """
import json, torch
from helpers.ranks.cpu import device
device.switch_on()
from megatron.core import parallel_state
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.inference.engines import StaticInferenceEngine
from megatron.core.inference.model_inference_wrappers.gpt.gpt_inference_wrapper import GPTInferenceWrapper
from megatron.core.inference.sampling_params import SamplingParams
from megatron.core.inference.text_generation_controllers.text_generation_controller import TextGenerationController
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

torch.distributed.init_process_group("gloo")
parallel_state.initialize_model_parallel()
model_parallel_cuda_manual_seed(123)
config = TransformerConfig(
    num_layers=2, hidden_size=32, num_attention_heads=4, use_cpu_initialization=True, init_method_std=0.5
)
model = GPTModel(config, get_gpt_layer_local_spec(), vocab_size=100, max_sequence_length=64).cuda().eval()

class Numbers:
    "A tokenizer whose words are token ids."
    vocab_size, eod, bos = 100, 100, 0
    tokenize = staticmethod(lambda text: [int(word) for word in text.split()])
    detokenize = staticmethod(lambda ids, **options: " ".join(map(str, ids)))

def likeliest(ids, count):
    "The likeliest continuation, each token from a whole forward pass."
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([ids]), torch.arange(len(ids))[None], None)
            ids = [*ids, int(logits[0, -1].argmax())]
    return ids[-count:]

prompts = ["1 2 3 4", "7 8 9 10 11"]
expected = [likeliest(Numbers.tokenize(prompt), 8) for prompt in prompts]
wrapped = GPTInferenceWrapper(model, StaticInferenceContext(max_batch_size=2, max_sequence_length=64))
engine = StaticInferenceEngine(TextGenerationController(wrapped, Numbers()), max_batch_size=2, legacy=True)
written = engine.generate(prompts, sampling_params=SamplingParams(num_tokens_to_generate=8, top_k=1))
print(json.dumps([expected, [Numbers.tokenize(request.generated_text) for request in written]]))
torch.distributed.destroy_process_group()
"""


def test_megatrons_static_engine_writes_what_the_model_finds_likeliest(tmp_path):
    (tmp_path / "generate.py").write_text(PROGRAM)
    printed = real_runs.run(1, tmp_path / "generate.py")
    expected, written = json.loads(next(line for line in printed.splitlines() if line.startswith("[[[")))
    assert written == expected and [len(tokens) for tokens in written] == [8, 8]
