"""Sums of notebook 02: what the first loss should be, and how far a run goes through its corpus."""

import math

import pytest
from records import RECIPE, curves, make_run

from helpers import recipes
from helpers.lessons import sums
from helpers.machine import CPU

MODEL = recipes.gpt3_345m().model


def test_the_first_loss_term_by_term(small_corpus, tmp_path):
    run = make_run(tmp_path / "run", recipes.gpt3_345m(), CPU, {"lm loss": {1: 11.12, 2: 10.0}})
    nats = sums.first_loss(MODEL, run, small_corpus)["nats"]
    assert nats["ln V"] == pytest.approx(math.log(50304), abs=1e-3) and nats["+ ½ σ² h"] == 0.205
    assert nats["= expected"] == 11.031 and nats["measured"] == 11.12 and nats["measured − expected"] == 0.089
    assert 0.02 < nats["± by chance"] < 0.2
    assert sums.first_loss(MODEL).index.tolist() == ["ln V", "+ ½ σ² h", "= expected"]


def test_the_spread_of_logits_and_the_chance_of_the_labels_by_experiment():
    """What `first_loss` says, with torch: hidden states of length √h that point nearly one way, and tied weights."""
    import torch

    generator = torch.Generator().manual_seed(0)
    h, vocabulary, sigma, tokens = 512, 20_000, 0.02, 400
    shares = 1 / torch.arange(1, vocabulary + 1)
    shares /= shares.sum()
    excess = []
    for _ in range(30):
        weights = sigma * torch.randn(vocabulary, h, generator=generator)
        hidden = torch.randn(1, h, generator=generator) + 0.1 * torch.randn(tokens, h, generator=generator)
        hidden *= math.sqrt(h) / hidden.norm(dim=1, keepdim=True)
        logits = hidden @ weights.T
        labels = torch.multinomial(shares, tokens, replacement=True, generator=generator)
        lse = logits.logsumexp(1)
        assert float(lse.mean()) - math.log(vocabulary) == pytest.approx(sigma**2 * h / 2, rel=0.1)
        excess.append(float((lse - logits[torch.arange(tokens), labels]).mean()) - math.log(vocabulary))
    excess = torch.tensor(excess)
    spread = sigma * math.sqrt(h) * float((shares**2).sum().sqrt())
    assert float(excess.std()) == pytest.approx(spread, rel=0.4)
    assert float(excess.mean()) == pytest.approx(sigma**2 * h / 2, abs=3 * spread / math.sqrt(30))


def test_epochs_are_of_the_training_part(small_corpus, tiny_recipe):
    table = sums.epochs(tiny_recipe, small_corpus)["value"]
    tokens = 30 * 8 * 64
    assert table["tokens of the run"] == f"{tokens:,}"
    train = int(table["tokens of the training part"].replace(",", ""))
    assert train == pytest.approx(0.9 * small_corpus.tokens, rel=0.05)
    assert float(table["epochs"]) == pytest.approx(tokens / train, abs=0.005)


@pytest.mark.parametrize(
    "call",
    [
        sums.mfu,
        lambda run: sums.scaling([run]),
        lambda run: sums.faster({"a": run}),
        lambda run: sums.speed_up(run, run),
        lambda run: sums.first_loss(RECIPE.model, run),
    ],
)
def test_a_run_without_a_step_is_named(call, tmp_path):
    with pytest.raises(ValueError, match=r"without a single step. It has no .* to go on with"):
        call(make_run(tmp_path / "a", scalars={}))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: sums.mfu("run"), "it takes a run"),
        (lambda run: sums.scaling(run), "One alone is put in brackets"),
        (lambda run: sums.faster(run), "it takes a dict, each key a text, each value a run"),
        (lambda run: sums.faster({}), "there is no run to choose from"),
        (lambda run: sums.launching(), "there is nothing measured"),
        (lambda run: sums.parameters(run.recipe), "it takes a model, such as recipe.model, not a recipe"),
        (lambda run: sums.epochs(run.recipe, "folder"), "it takes a corpus"),
        (lambda run: sums.memory_plan(run.recipe, {5: 2}), "5 in it is an int"),
        (lambda run: sums.memory_plan(run.recipe, {"tensor_parallel": 0}), "tensor_parallel=0"),
        (lambda run: sums.first_loss(run.recipe.with_(vocab_size=0).model), "vocab_size=0"),
        (lambda run: sums.largest_difference(run, None), "(other=None): it takes a run"),
    ],
)
def test_sums_of_something_else_are_refused(call, words, tmp_path):
    with pytest.raises((TypeError, ValueError)) as refused:
        call(make_run(tmp_path / "a"))
    assert words in str(refused.value)


def test_a_memory_plan_has_megatrons_estimate_where_it_is_asked_for():
    llama = recipes.llama3_8b()
    assert sums.memory_plan(llama, {}, {"context_parallel": 2})["Megatron"].tolist()[1] == "–"
    assert "Megatron" not in sums.memory_plan(llama, {}, megatron=False).columns


def test_the_gap_of_two_runs_has_a_sign_and_a_scatter(tmp_path):
    base = make_run(tmp_path / "base", RECIPE, CPU, curves())
    worse = make_run(tmp_path / "worse", RECIPE, CPU, curves(start=10.9))
    table = sums.loss_gaps(
        {"worse − base": (worse, base), "base − worse": (base, worse), "gone": (None, base)}, last=10
    )
    assert table["mean"].tolist() == ["+0.1000", "-0.1000", "–"]
    assert table["above 0"].tolist()[:2] == ["10 of 10", "0 of 10"]
    assert table.loc["worse − base", "steps"] == "11 to 20" and table.loc["gone", "steps"] == "not recorded yet"


def test_shares_are_shown_in_percent():
    import pandas as pd

    assert sums.in_percent(pd.DataFrame({"a": [0.02654]})).loc[0, "a"] == "2.65%"
