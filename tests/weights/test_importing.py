"""Hugging Face folders as recipes and Megatron checkpoints: the same numbers, and what cannot be taken in words."""

import http.server
import json
import math
import shutil
import threading

import pytest
import tiny_models

from helpers import corpus, launch, weights
from helpers.machine import CPU, cache_root
from helpers.processes import programs, trust
from helpers.ranks import hugging_face
from helpers.recipes import Layout, preflight
from helpers.weights import checkpoint, families, folders, hub


def state(folder):
    """Every tensor that a Hugging Face folder gives transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


def logits(folder, tokens):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()(tokens).logits.float()


@pytest.fixture(scope="module")
def folder_of(small_corpus, tmp_path_factory):
    """The folder of a tiny model, by its name in `tiny_models`."""
    root = tmp_path_factory.mktemp("published")
    made = {}

    def of(name):
        if name not in made:
            made[name] = tiny_models.save(name, root / name, small_corpus.tokenizer_path)
        return made[name]

    return of


# ---- the same numbers --------------------------------------------------------------------------------------------
@pytest.mark.train
def test_every_family_and_odd_shape_comes_back_bit_by_bit(folder_of, tmp_path):
    """In and out in one launch: the same tensors, and Megatron's logits are transformers'."""
    from safetensors.torch import load_file

    cases = []
    for name in tiny_models.CONFIGS:
        published = folders.published(folder_of(name))
        recipe = families.recipe_of(published, name, "tokenizer")
        flags = checkpoint.model_flags(recipe, Layout(), CPU)
        saved, out = tmp_path / name / "saved", tmp_path / name / "out"
        out.mkdir(parents=True)
        (out / "config.json").write_text(json.dumps(families.config_of(recipe, published.vocabulary, 0)))
        probe = [[(7 * i * i + i) % published.vocabulary for i in range(40)]]
        question = {"folder": str(out), "sizes": published.sizes, "shard_bytes": 10**9, "probe": probe}
        files = list(map(str, folders.weight_files(folder_of(name))))
        save = ["--save", str(saved), "--save-interval", "1", "--no-save-optim", "--no-save-rng"]
        load = ["--load", str(saved), "--no-load-optim", "--no-load-rng", "--exit-on-missing-checkpoint"]
        cases.append(
            {
                "import": {"files": files, "sizes": published.sizes}, "import_flags": flags + save,
                "export": question, "export_flags": flags + load,
            }
        )  # fmt: skip
    listed = tmp_path / "cases.json"
    listed.write_text(json.dumps(cases))
    script = tiny_models.__file__.replace("tiny_models", "round_trip_ranks")
    programs.ranks(script, 1, listed, machine=CPU, timeout_seconds=1500)

    for name in tiny_models.CONFIGS:
        out = tmp_path / name / "out"
        before, after = state(folder_of(name)), state(out)
        assert before.keys() == after.keys(), name
        assert all(before[key].dtype == after[key].dtype and before[key].equal(after[key]) for key in before), name
        probe = load_file(out / "probe.safetensors")
        theirs = logits(folder_of(name), probe["tokens"])
        difference, scale = (probe["logits"] - theirs).abs().max().item(), theirs.abs().max().item()
        allowed = 0.03 if name == "qwen2" else 2e-4 / 30  # bf16 has 8 bits
        print(f"{name}: logits differ by {difference:.1e} at a scale of {scale:.1f}")
        assert scale > 1 and difference <= allowed * scale, (name, difference, scale)


@pytest.fixture(scope="module")
def taken(folder_of):
    return weights.from_hugging_face(folder_of("llama"))


@pytest.mark.train
def test_a_model_is_converted_once_and_kept(taken, folder_of, capsys):
    assert weights.from_hugging_face(folder_of("llama")) == taken
    assert "Converting" not in capsys.readouterr().out
    model = taken.model
    assert (model.kv_channels, model.num_query_groups, model.vocab_size, model.max_positions) == (16, 3, 640, 128)
    assert (model.norm_epsilon, model.rope_scaling_factor, model.rotary_base) == (1e-6, 8.0, 10000)
    assert not model.tied_embeddings and not model.linear_bias and taken.precision.dtype == "fp32"
    assert not list(cache_root().glob("weights/.*unfinished"))


@pytest.mark.train
def test_training_goes_on_from_the_weights_and_resumes_from_its_own(taken, folder_of, small_jsonl, tmp_path):
    """The first loss is that of transformers on the same samples, padded rows counted in; killed after some steps,
    the run goes on from its own checkpoint, not from the published one. Loaded as a pipeline of two."""
    import torch

    data = corpus.prepare(str(small_jsonl), tokenizer=taken.tokenizer)
    recipe = taken.with_(
        sequence_length=64, train_iters=40, lr_warmup_iters=0, save_interval=4, eval_interval=40, eval_iters=1,
        layout=Layout(pipeline_parallel=2),
    )  # fmt: skip
    run = launch.train(recipe, data, machine=CPU, runs_dir=tmp_path, detach=True)
    launch.follow(run, kill_at=6)
    samples = corpus.draw(data, 64, split=recipe.schedule.split, count=recipe.batch.global_batch_size)
    given = logits(folder_of("llama"), torch.tensor(samples.tokens))
    padding = recipe.model.vocab_size - 601
    mean = given.mean(-1, keepdim=True) + math.log(padding)
    rows = torch.cat([given, mean], dim=-1)
    expected = torch.nn.functional.cross_entropy(rows.flatten(0, 1), torch.tensor(samples.labels).flatten()).item()
    assert run.losses.loc[1] == pytest.approx(expected, abs=2e-5)
    again = launch.train(recipe, data, machine=CPU, runs_dir=tmp_path)
    assert again.path == run.path and list(again.losses.index) == list(range(1, 41))
    first, last = again.log_text.split("=== launch ")[-2:]
    loaded = "successfully loaded checkpoint from"
    assert f"{loaded} {taken.pretrained}" in first and f"{loaded} {run.path}/checkpoints" not in first
    assert f"{loaded} {run.path}/checkpoints" in last and f"{loaded} {taken.pretrained}" not in last


@pytest.mark.train
def test_weights_enter_the_fingerprint(taken, small_corpus):
    assert taken.fingerprint(small_corpus) != taken.with_(pretrained=None).fingerprint(small_corpus)
    flags = taken.flags(small_corpus, CPU)
    assert flags[flags.index("--pretrained-checkpoint") + 1] == taken.pretrained


@pytest.mark.train
def test_preflight_refuses_weights_of_another_model(taken, small_corpus, tmp_path):
    def problems(recipe):
        return "\n".join(map(str, preflight.check(recipe, None, CPU)))

    assert problems(taken) == ""
    said = problems(taken.with_(num_layers=3, ffn_hidden_size=64))
    assert "a model with num_layers=2, ffn_size=80, and the recipe has num_layers=3, ffn_size=64" in said
    assert "no whole checkpoint" in problems(taken.with_(pretrained=tmp_path))
    shutil.copytree(taken.pretrained, tmp_path / "checkpoints")
    assert "was not written by a run of yours" in problems(taken.with_(pretrained=tmp_path))
    trust.trust(tmp_path)
    assert problems(taken.with_(pretrained=tmp_path)) == ""


# ---- what cannot be taken ----------------------------------------------------------------------------------------
def broken(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without(*names):
    def remove(folder):
        for name in names:
            (folder / name).unlink()

    return remove


def config(**settings):
    return lambda folder: tiny_models.set_in_config(folder, **settings)


def cut_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 the first half of an archive")


def shards(folder):
    (folder / "model.safetensors").unlink()
    listed = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def no_index(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("config.json"), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (without("model.safetensors"), "has no weights: neither model.safetensors nor pytorch_model.bin"),
        (no_index, "has model-1.safetensors, and no model.safetensors.index.json.*: fetch that file, too"),
        (broken, r"is cut off: it has [\d,]+ of [\d,]+ bytes"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "its list of tensors cannot be read"),
        (cut_pickle, "pytorch_model.bin is cut off: its list of contents is missing"),
        (shards, "lacks model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, which"),
        (without("tokenizer.json"), "has no tokenizer.json"),
        (config(vocab_size=400), "knows 512 tokens, and the model has 400.* Put the model's own there"),
        (config(model_type="mamba"), "is of the family 'mamba', and those that can be taken are gpt2, llama"),
        (config(quantization_config={"quant_method": "gptq"}), "are quantised \\(GPTQ\\)"),
        (config(quantization_config={"quant_method": "awq"}), "are quantised \\(AWQ\\)"),
        (config(auto_map={"AutoModelForCausalLM": "code.Model"}), "auto_map=.*no counterpart"),
        (config(sliding_window=4096, model_type="mistral"), "sliding_window=4096"),
        (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}), "by 'yarn'.* without it"),
        (config(rope_parameters=tiny_models.SCALED | {"low_freq_factor": 2.0}), "low_freq_factor=2.0"),
        (config(attention_bias=True), "attention_bias=True and mlp_bias=False.* take a model of either kind"),
        (config(hidden_act="gelu"), "hidden_act='gelu', which the recipe has no counterpart for"),
        (config(logit_scale=0.5), "logit_scale=0.5, which the recipe has no counterpart for"),
    ],
)
def test_a_folder_that_cannot_be_taken(damage, words, folder_of, tmp_path):
    folder = shutil.copytree(folder_of("llama"), tmp_path / "odd")
    damage(folder)
    with pytest.raises(weights.WeightsError, match=words):
        weights.from_hugging_face(folder)
    assert not [path for path in cache_root().glob("weights/*odd*") if path.suffix != ".lock"]


@pytest.mark.train
@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (["model.layers.1.mlp.down_proj.weight"], "lacking: the files hold no tensor model.layers.1.mlp.down_proj"),
        ([], "lacking: config.json ties the output layer to the embedding, and the files hold another lm_head.weight"),
    ],
)
def test_files_that_are_not_of_the_config_are_told_by_the_tensors_name(folder_of, tmp_path, gone, words):
    """A model tied by config.json alone was converted without its own output layer, in silence."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folder_of("llama"), tmp_path / "lacking")
    held = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in held.items() if name not in gone}, folder / "model.safetensors")
    config(tie_word_embeddings=not gone)(folder)
    with pytest.raises(weights.WeightsError, match=words):
        weights.from_hugging_face(folder)
    assert not [path for path in cache_root().glob("weights/*lacking*") if path.suffix != ".lock"]


def test_no_tensor_of_the_files_is_left_out_in_silence():
    import torch

    table, needless = torch.ones(2, 2), "model.layers.0.self_attn.rotary_emb.inv_freq"
    held = {"model.embed_tokens.weight": table, "lm_head.weight": table, needless: table}
    assert hugging_face.why_unread(held, {"model.embed_tokens.weight"}) is None
    assert "another lm_head" in hugging_face.why_unread(held | {"lm_head.weight": table + 1}, set(list(held)[:1]))
    layers = {f"model.layers.2.{part}.weight": table for part in ("mlp", "norm")}
    said = hugging_face.why_unread(held | layers, set(list(held)[:1]))
    assert said.startswith("the files hold 2 tensors that config.json has no place for, model.layers.2.mlp")


@pytest.mark.train
def test_pickled_weights_run_nothing(folder_of, tmp_path):
    import torch

    class Opens:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    folder = shutil.copytree(folder_of("llama"), tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Opens()}, folder / "pytorch_model.bin")
    with pytest.raises(weights.WeightsError, match="pytorch_model.bin cannot be read"):
        weights.from_hugging_face(folder)
    assert not (tmp_path / "written").exists()
    assert not [path for path in cache_root().glob("weights/*pickled*") if path.suffix != ".lock"]


def test_no_room_for_the_converted_weights(folder_of, tmp_path, monkeypatch):
    folder = shutil.copytree(folder_of("llama"), tmp_path / "large")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**5}))
    with pytest.raises(weights.WeightsError, match="The converted weights take .*, and 100 kB is free"):
        weights.from_hugging_face(folder)


class Gate(http.server.BaseHTTPRequestHandler):
    """A hub that answers as the real one does to those whom the owner has not let in, or of what it has not."""

    def do_GET(self):
        code, error = (403, "GatedRepo") if "gated" in self.path else (404, "RepoNotFound")
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [("owner/gated", "accept its terms on the hub's page, then run `hf auth login`"), ("owner/none", "no such model")],
)
def test_a_model_that_the_hub_does_not_give(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 300)  # a busy machine imports the hub's client slowly
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(weights.WeightsError, match=words):
            hub.fetch(name)
        server.shutdown()


def test_a_name_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(weights.WeightsError, match="There is no folder nowhere, the hub's names are owner/name"):
        weights.from_hugging_face("nowhere")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(weights.WeightsError, match="is a file: give the folder"):
        weights.from_hugging_face(tmp_path / "model.safetensors")
    with pytest.raises(TypeError, match="it takes a path, or a text"):
        weights.from_hugging_face(7)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import time; time.sleep(600)", "did not answer within 0 s"),
        ("""print('{"answered": true}'); print('{"error": "its owner gives it"}')""", "hub: its owner gives it"),
        ("""print('{"error": "ConnectError: no route"}')""", "cannot give it: ConnectError: no route"),
    ],
)
def test_a_hub_that_hangs_or_refuses(program, words, tmp_path, monkeypatch):
    (tmp_path / "hub_process.py").write_text(program)
    monkeypatch.setattr(hub, "__file__", str(tmp_path / "hub.py"))
    if "sleep" in program:
        monkeypatch.setattr(hub, "HUB_SECONDS", 0.3)
    with pytest.raises(weights.WeightsError, match=words):
        hub.fetch("owner/name")
