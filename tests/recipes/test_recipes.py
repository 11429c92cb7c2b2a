import dataclasses
from dataclasses import replace
from pathlib import Path

import megatron_parser
import pytest
import yaml
from machines import H100, H200, ONE_2080, ONE_3090, ONE_H200, RTX_2080, RTX_3090, TWO_H200
from records import DATA

from helpers import launch, recipes
from helpers.machine import CPU, Machine, described
from helpers.recipes import Layout, names, preflight
from helpers.recipes.flag import GROUPS
from helpers.recipes.settings import PARTS

ALL = (recipes.gpt3_345m, recipes.gpt3_857m, recipes.llama3_8b, recipes.upstream_345m_label)


@pytest.mark.parametrize(
    ("recipe", "millions", "tolerance"),
    [
        (recipes.gpt3_345m, 354.871296, 0),
        (recipes.gpt3_857m, 857, 0.02),
        (recipes.llama3_8b, 8030, 0.001),
        (recipes.upstream_345m_label, 64.1, 0.01),
    ],
)
def test_sizes_are_counted_not_labelled(recipe, millions, tolerance):
    from helpers.recipes import accounting

    parameters = accounting.parameters(recipe().model)["parameters"].sum()
    assert abs(parameters / 1e6 - millions) <= millions * tolerance


def test_llama3_is_llama3():
    flags = recipes.llama3_8b().flags(DATA, TWO_H200)
    expected = {
        "--num-layers": "32",
        "--hidden-size": "4096",
        "--num-attention-heads": "32",
        "--num-query-groups": "8",
        "--ffn-hidden-size": "14336",
        "--rotary-base": "500000",
        "--normalization": "RMSNorm",
        "--padded-vocab-size": "128256",
        "--fp8-format": "hybrid",
    }
    for name, value in expected.items():
        assert flags[flags.index(name) + 1] == value
    for switch in ("--swiglu", "--untie-embeddings-and-output-weights", "--group-query-attention"):
        assert switch in flags


def test_with_reaches_every_part():
    recipe = recipes.gpt3_345m().with_(tensor_parallel=2, sequence_parallel=True, micro_batch_size=4, lr=1e-3, name="x")
    assert recipe.layout == Layout(tensor_parallel=2, sequence_parallel=True)
    assert (recipe.layout.world_size, recipe.batch.micro_batch_size, recipe.schedule.lr) == (2, 4, 1e-3)
    assert recipe.name == "x"


def test_with_names_the_closest_field():
    with pytest.raises(TypeError, match="no 'micro_batchsize'. Did you mean micro_batch_size"):
        recipes.gpt3_345m().with_(micro_batchsize=4)


def test_with_knows_what_others_call_a_field():
    recipe = recipes.gpt3_345m()
    fields = {field.name for kind in PARTS.values() for field in dataclasses.fields(kind)}
    assert set(names.OURS.values()) <= fields and not fields & set(names.OURS)
    for given, meant in {
        "tp": "tensor_parallel", "PP": "pipeline_parallel", "gbs": "global_batch_size", "learning_rate": "lr",
        "num_heads": "num_attention_heads", "seq_length": "sequence_length",
        "tensor_model_parallel_size": "tensor_parallel",
    }.items():  # fmt: skip
        with pytest.raises(TypeError, match=f"no '{given}'. Did you mean {meant}?"):
            recipe.with_(**{given: 2})


def test_with_refuses_a_part_that_is_none():
    with pytest.raises(TypeError, match="model='gpt': this part of a recipe is a Model"):
        recipes.gpt3_345m().with_(model="gpt", num_layers=2)


@pytest.mark.parametrize("build", ALL)
def test_scaled_to_a_cpu_keeps_the_features(build):
    full, small = build(), build().scaled_to("cpu")
    for feature in (
        "normalization",
        "activation",
        "position_embedding",
        "tied_embeddings",
        "linear_bias",
        "rotary_base",
    ):
        assert getattr(small.model, feature) == getattr(full.model, feature)
    assert (small.model.num_query_groups is None) == (full.model.num_query_groups is None)
    assert small.model.vocab_size == 4096 and small.tokenizer == "bpe-4096"
    assert small.precision.dtype == "fp32" and small.precision.fp8_format is None


@pytest.mark.parametrize("build", ALL)
@pytest.mark.parametrize("gpu", [RTX_2080, RTX_3090, H200])
def test_scaled_to_a_gpu_fits_its_memory(build, gpu):
    from helpers.recipes import accounting

    machine = Machine(gpus=(gpu,), transformer_engine=gpu is H200)
    recipe = build().scaled_to(machine)
    assert sum(accounting.memory(recipe).values()) <= gpu.memory_bytes
    assert recipe.precision.dtype == ("bf16" if gpu.supports_bf16 else "fp16")
    assert recipe.precision.fp8_format is None or gpu.supports_fp8
    assert recipe.batch.global_batch_size % recipe.batch.micro_batch_size == 0


@pytest.mark.parametrize(
    ("machine", "records"),
    [
        (TWO_H200, True),
        (replace(TWO_H200, transformer_engine=False), False),  # which a CUDA graph takes
        (ONE_2080, False),  # fp16
        (ONE_3090, False),  # little room beside the activations
        (CPU, False),
    ],
    ids=["H200", "without Transformer Engine", "fp16", "24 GB", "CPU"],
)
def test_scaled_to_keeps_the_cuda_graph_where_it_was_measured(machine, records):
    assert recipes.gpt3_345m().scaled_to(machine).speed.cuda_graph is records


def test_scaled_to_recomputes_without_a_cuda_graph():
    recipe = recipes.llama3_8b().with_(sequence_length=65536).scaled_to(described("4 × H100"))
    assert recipe.batch.recompute and not recipe.speed.cuda_graph


def test_the_whole_8b_trains_on_two_gpus_of_80_gigabytes():
    """FP8 with TP2 took 72.1 GB of tensors on two H100, launched kernel by kernel; recorded it ran out of memory."""
    recipe = recipes.llama3_8b().scaled_to(Machine(gpus=(H100,) * 2, transformer_engine=True))
    assert recipe.model == recipes.llama3_8b().model and recipe.name == "llama3_8b"
    assert recipe.layout.tensor_parallel == 2 and not recipe.speed.cuda_graph and recipe.batch.recompute is None


@pytest.mark.parametrize(
    ("gpus", "batch", "used"), [(2, 8, 2), (3, 8, 2), (5, 8, 4), (6, 8, 4), (7, 8, 4), (8, 8, 8), (8, 4, 8), (7, 6, 6)]
)
def test_scaled_to_several_gpus_takes_as_many_as_share_batch_and_model_evenly(gpus, batch, used):
    machine = Machine(gpus=(H200,) * gpus, transformer_engine=True)
    recipe = recipes.llama3_8b().with_(global_batch_size=batch).scaled_to(machine)
    assert recipe.layout.world_size == used and recipe.model == recipes.llama3_8b().model
    assert not [problem for problem in preflight.check(recipe, None, machine) if problem.severity == "error"]


def test_scaled_to_a_small_gpu_lets_nothing_grow():
    large = recipes.llama3_8b().with_(num_layers=1, sequence_length=512)
    small = large.scaled_to(Machine(gpus=(RTX_2080,))).model
    assert small.hidden_size < large.model.hidden_size
    assert (small.num_layers, small.sequence_length) == (1, 512)


def test_overlap_inside_tensor_parallelism_goes_in_rings():
    """The file that Megatron hands to Transformer Engine: four products, all sent by the copy engines."""
    recipe = recipes.gpt3_345m().with_(tensor_parallel=2, sequence_parallel=True, overlap_tensor_parallel=True)
    flags = recipe.flags(DATA, TWO_H200)
    assert "--tp-comm-overlap-rs-dgrad" in flags  # or the rings of the two gradients are not used
    rings = yaml.safe_load(Path(flags[flags.index("--tp-comm-overlap-cfg") + 1]).read_text())
    assert set(rings) == {"proj_fprop", "fc2_fprop", "qkv_dgrad", "fc1_dgrad"}
    assert all(ring["method"] == "ring_exchange" and not ring["set_sm_margin"] for ring in rings.values())


def test_the_whole_345m_fits_24_gigabytes():
    recipe = recipes.gpt3_345m().scaled_to(Machine(gpus=(RTX_3090,)))
    assert recipe.model == recipes.gpt3_345m().model


def test_only_the_device_group_differs_between_cpu_and_gpu():
    recipe = recipes.gpt3_345m().with_(stock=False)
    cpu, gpu = recipe.flag_groups(DATA, CPU), recipe.flag_groups(DATA, TWO_H200)
    assert {*cpu, *gpu, "your own"} == set(GROUPS)
    for group in cpu:
        assert (cpu[group] == gpu[group]) == (group != "device")
    assert all(flag.why for flag in cpu["device"])
    assert "--distributed-backend" in recipe.explain(DATA, CPU, "device").index
    assert ("device", "--distributed-backend") in recipe.explain(DATA, CPU).index
    assert 'No flag of the group "device" is needed' in repr(recipe.explain(DATA, TWO_H200, "device"))


def test_no_flag_is_given_twice():
    recipe = recipes.llama3_8b().scaled_to("cpu").with_(use_cpu_initialization=True, tensor_parallel=2)
    names = [word for word in recipe.flags(DATA, CPU) if word.startswith("--")]
    assert sorted(names) == sorted(set(names))


def test_command_reads_like_a_shell_line():
    recipe = recipes.gpt3_345m().with_(tensor_parallel=2)
    command = recipe.command(DATA, TWO_H200)
    text = str(command)
    lines = text.split(" \\\n")
    assert "CUDA_DEVICE_MAX_CONNECTIONS=1" in lines
    assert lines[len(command.environment)].startswith("torchrun --standalone --nproc-per-node 2 helpers/ranks/")
    assert "    --tensor-model-parallel-size 2" in lines
    assert all(line.startswith("    --") for line in lines[len(command.environment) + 1 :]), "one flag a line"
    assert all(word in text for word in command.argv[3:])


def test_a_value_of_an_own_flag_stands_on_its_line():
    command = recipes.gpt3_345m().with_(extra_flags=("--rotary-base", "10000", "--z")).command(DATA, CPU)
    assert str(command).split(" \\\n")[-2:] == ["    --rotary-base 10000", "    --z"]


def test_a_terminal_shows_a_recipe_as_a_page_does():
    recipe = recipes.gpt3_345m()
    assert repr(recipe).splitlines()[0].split() == ["recipe", "gpt3_345m"] and "Model(" not in repr(recipe)
    assert str(recipe) == repr(recipe) and "354,871,296" in recipe._repr_html_()


def test_another_entry_script_gets_the_same_flags(tmp_path):
    recipe = recipes.gpt3_345m().scaled_to("cpu")
    ours = recipe.command(DATA, CPU)
    theirs = recipe.command(DATA, CPU, entry_script=tmp_path / "pretrain_gpt.py")
    at = theirs.argv.index(str(tmp_path / "pretrain_gpt.py"))
    assert theirs.argv[at + 1 :] == ours.argv[ours.argv.index("helpers/ranks/pretrain_gpt.py") + 1 :]


def test_another_entry_script_records_no_step():
    """It would end its groups while the recorded step lives, and NCCL would wait forever."""
    recipe = recipes.gpt3_345m()
    assert "--cuda-graph-impl" in recipe.command(DATA, TWO_H200).argv
    theirs = recipe.command(DATA, TWO_H200, entry_script="pretrain_gpt.py").argv
    assert "--cuda-graph-impl" not in theirs and "--cross-entropy-loss-fusion" in theirs


def test_fingerprint_is_what_decides_the_weights():
    recipe = recipes.gpt3_345m()
    same = recipe.with_(save_interval=7, wandb_project="p", exit_interval=3, name="other")
    assert recipe.fingerprint(DATA) == same.fingerprint(DATA)
    other_data = dataclasses.replace(DATA, fingerprint="def")
    different = [recipe.with_(seed=1), recipe.with_(tensor_parallel=2), recipe.with_(dtype="fp16")]
    assert (
        len({recipe.fingerprint(DATA), recipe.fingerprint(other_data), *(r.fingerprint(DATA) for r in different)}) == 5
    )


def test_wandb_brings_tensorboard_along():
    flags = recipes.gpt3_345m().with_(tensorboard=False, wandb_project="tour").flags(DATA, CPU)
    assert "--tensorboard-dir" in flags and "--wandb-save-dir" in flags
    assert "--tensorboard-dir" not in recipes.gpt3_345m().with_(tensorboard=False).flags(DATA, CPU)


def test_a_long_text_is_cut_where_it_is_told():
    small = recipes.gpt3_345m().scaled_to("cpu")
    laid_out = small.with_(pipeline_layout="E" * 100_000)
    told = "".join(str(problem) for problem in preflight.check(laid_out, None, CPU))
    assert "EEEE …" in told and len(told) < 3000
    assert "EEEE …" in laid_out.layout.name and len(repr(laid_out)) < 1500
    assert "xxxx …" in repr(named := small.with_(name="x" * 100_000)) and len(repr(named)) < 1500
    (problem,) = preflight.check(small.with_(split="x" * 100_000), None, CPU)
    assert "xxxx …" in problem.why and len(str(problem)) < 3000


def test_every_flag_is_one_of_megatrons():
    known = megatron_parser.flags()
    features = {"wandb_project": "p", "wandb_entity": "e", "save_interval": 5, "distributed_optimizer": True}
    features |= {"virtual_pipeline_chunks": 2, "context_parallel": 2, "sequence_parallel": True, "recompute": "full"}
    features |= {"num_experts": 4, "expert_parallel": 2, "expert_tensor_parallel": 1, "exit_interval": 3}
    features |= {"fp8_recipe": "delayed", "fp8_param_gather": True}
    for build in ALL:
        for recipe in (build(), build().with_(**features)):
            for machine in (CPU, TWO_H200):
                flags = {word for word in recipe.flags(DATA, machine) if word.startswith("--")}
                assert flags <= known, flags - known


def test_an_entry_script_of_ones_own_may_stand_under_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pretrain_gpt.py").write_text("")
    argv = recipes.gpt3_345m().scaled_to("cpu").command(None, CPU, entry_script="~/pretrain_gpt.py").argv
    assert str(tmp_path / "pretrain_gpt.py") in argv


@pytest.mark.parametrize("name", ["x\ntouch ran", "../escape", "", ".", "n" * 300, None, 5])
def test_a_name_that_is_none_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(preflight.PreflightError, match="names a folder"):
        launch.train(recipes.gpt3_345m().scaled_to("cpu").with_(name=name), None, runs_dir=tmp_path / "runs")
    assert not any(tmp_path.iterdir())


def test_an_entry_script_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(preflight.PreflightError, match="entry_script='nowhere.py'"):
        launch.train(recipes.gpt3_345m().scaled_to("cpu"), None, entry_script="nowhere.py", runs_dir=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_small_model_trains_in_bf16_but_on_a_cpu_that_is_slow_at_it(capsys):
    for fine in (CPU, TWO_H200, replace(TWO_H200, fast_cpu_bf16=False)):
        assert recipes.bf16_or_fp32(fine) == "bf16" and capsys.readouterr().out == ""
    assert recipes.bf16_or_fp32(replace(CPU, fast_cpu_bf16=False)) == "fp32"
    assert "AVX-512" in (said := capsys.readouterr().out) and said.count("\n") == 1


@pytest.mark.parametrize("machine", ["cpu", "gpu", 5, H200], ids=str)
def test_what_is_no_machine_is_refused_wherever_one_is_wanted(machine):
    recipe = recipes.gpt3_345m()
    for call in (
        lambda: recipe.flags(None, machine),
        lambda: recipe.explain(machine=machine),
        lambda: recipe.command(None, machine),
        lambda: recipe.diff(recipe, machine=machine),
        lambda: preflight.check(recipe, None, machine),
        lambda: recipes.accounting.memory(recipe, machine),
        lambda: recipes.bf16_or_fp32(machine),
        lambda: recipe.scaled_to(None if machine == "cpu" else machine),
    ):
        with pytest.raises(TypeError, match=r"\(machine=.*it takes a machine \(helpers.machine.here\(\) is this one\)"):
            call()


@pytest.mark.parametrize("data", ["speeches", Path("folder"), {}, 5], ids=str)
def test_what_is_no_corpus_is_refused_wherever_one_is_wanted(data):
    recipe = recipes.gpt3_345m()
    for call in (recipe.flags, recipe.explain, recipe.command, recipe.fingerprint, lambda d: recipe.diff(recipe, d)):
        with pytest.raises(TypeError, match=r"\(data=.*it takes a corpus, such as corpus.prepare\(\)"):
            call(data)


@pytest.mark.parametrize(("group", "words"), [(5, "There are: model, "), ("nope", "There are: "), ("modle", "'model'")])
def test_a_group_that_no_flag_has_is_named_with_those_there_are(group, words):
    recipe = recipes.gpt3_345m()
    for call in (lambda: recipe.explain(group=group), lambda: recipe.diff(recipe.with_(lr=1e-3), group=group)):
        with pytest.raises(ValueError, match=rf"group={group!r}: a recipe's flags have no such group. .*{words}"):
            call()


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_layers", "4"), ("lr", "3e-4"), ("hidden_size", 1e3), ("tensor_parallel", 0), ("recompute", True),
     ("clip_grad", None), ("split", "a,b,c"), ("extra_flags", (5,))],
)  # fmt: skip
def test_a_recipe_with_an_impossible_value_is_shown_and_refused_in_words(field, value):
    recipe = recipes.gpt3_345m().with_(**{field: value})
    assert f"{field}={value!r}" in repr(recipe) and field in recipe._repr_html_()
    for call in (
        lambda: recipe.explain(),
        lambda: recipe.command(None),
        lambda: recipe.diff(recipes.gpt3_345m()),
        lambda: recipe.scaled_to("cpu"),
        lambda: recipe.scaled_to(TWO_H200),
    ):
        with pytest.raises(preflight.PreflightError) as refused:
            call()
        assert f"{field}={value!r}" in str(refused.value)


def test_a_model_beyond_all_gpus_is_refused_in_words():
    with pytest.raises(ValueError, match="does not fit"):
        recipes.gpt3_345m().with_(hidden_size=10**6).scaled_to(TWO_H200)


def test_scaled_to_keeps_pretrained_weights_or_says_that_it_cannot(tmp_path):
    published = recipes.gpt3_345m().with_(pretrained=tmp_path, kv_channels=96, max_positions=2048)
    with pytest.raises(ValueError, match="begins with pretrained weights, and on .*-core CPU scaled_to would make"):
        published.scaled_to("cpu")
    assert published.scaled_to(ONE_H200).model == published.model
    small = published.with_(pretrained=None).scaled_to("cpu").model
    assert (small.kv_channels, small.max_positions) == (None, None)


def test_a_run_of_fsdp_saves_in_its_own_format_alone():
    fsdp = recipes.gpt3_345m().scaled_to("cpu").with_(processes=2, distributed_optimizer=True, megatron_fsdp=True)
    flags = fsdp.with_(save_interval=10).flags(None, CPU)
    assert [flags[i + 1] for i, flag in enumerate(flags) if flag == "--ckpt-format"] == ["fsdp_dtensor"]
    assert "--dist-ckpt-optim-fully-reshardable" not in flags and "--calculate-per-token-loss" in flags
