"""A checkpoint goes on with a text, shown while it does."""

import html
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.machine import Machine, for_ranks
from helpers.recipes import Layout, Recipe
from helpers.runs import Run
from helpers.show.arguments import checked
from helpers.show.tables import visible_spaces
from helpers.weights import checkpoint, text
from helpers.weights.error import WeightsError

MARK, END = "TOKEN {", "DONE {"  # what the program prints before its JSON
LEAST_TEMPERATURE = 0.001  # the likeliest token in all but name; far below, fp32 overflows


@dataclass(frozen=True)
class Token:
    """One generated token: its text and id, the probability that the model gave it, and the likeliest (text,
    probability) in its place. The probabilities are the model's own, before temperature, top_k and top_p."""

    text: str
    id: int
    probability: float
    likeliest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, repr=False)
class Generation:
    """A prompt and how a model went on with it. `tokens_per_second`: of all texts together, after the first token."""

    prompt: str
    text: str
    tokens: tuple[Token, ...]
    tokens_per_second: float | None

    def table(self, first: int = 10):
        """The first tokens with their probabilities and the likeliest in their places, as a DataFrame."""
        import pandas as pd

        rows = [
            {
                "token": visible_spaces(token.text),
                "probability": f"{token.probability:.1%}",
                "likeliest": " ".join(f"{visible_spaces(word)} {share:.0%}" for word, share in token.likeliest),
            }
            for token in self.tokens[:first]
        ]
        return pd.DataFrame(rows, columns=["token", "probability", "likeliest"])

    def __repr__(self) -> str:
        return self.prompt + self.text

    def _repr_html_(self) -> str:
        """The text, each token on a ground that is the darker the less likely it was; its rivals on hovering."""
        spans = []
        for token in self.tokens:
            likeliest = ", ".join(f"{word!r} {share:.0%}" for word, share in token.likeliest)
            shade = max(0.0, 1 - token.probability) * 0.5
            title = html.escape(f"{token.probability:.1%}; likeliest: {likeliest}", quote=True)
            ground = f"background: rgba(221, 132, 82, {shade:.2f})"
            spans.append(f'<span title="{title}" style="{ground}">{html.escape(token.text)}</span>')
        body = html.escape(self.prompt) + "".join(spans)
        return f'<div style="white-space: pre-wrap; line-height: 1.6">{body}</div>'


@checked
def generate(
    source: Run | Recipe,
    prompt: str | list[str],
    *,
    tokens: int = 60,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 1,
    step: int | None = None,
    layout: Layout | None = None,
    machine: Machine | None = None,
) -> Generation | list[Generation]:
    """Let a checkpoint go on with a text, which is shown while it grows; interrupting the cell stops every process.

    Args:
        source: a run, or a recipe with pretrained weights.
        prompt: the text; of several, a list, they go on side by side and a list comes back.
        tokens: how many to add at most; a text ends before where the model ends it.
        temperature: None takes the likeliest token each time. 1 draws by the model's probabilities, less prefers the
            likely ones, more the unlikely.
        top_k, top_p: draw among the k likeliest, or the likeliest that together have so much of the probability.
        seed: of the draws.
        step: of which checkpoint; the newest if not given.
        layout: how the ranks share the model out (tensor, pipeline and expert parallelism); one rank if not given.

    Raises:
        WeightsError: these weights, this prompt or these settings cannot be used, in words.
        launch.TrainingFailed: a rank failed.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    _settings(prompts, tokens, temperature, top_k, top_p, seed)
    saved = checkpoint.of(source, step)
    layout = checkpoint.for_inference(layout or Layout(), saved.recipe)
    tokenizer = text.tokenizer_of(saved)
    end = tokenizer.eos_token_id
    ids = [tokenizer(one).input_ids or [end] for one in prompts]
    positions = saved.recipe.model.positions
    for one, encoded in zip(prompts, ids, strict=True):
        if encoded == [None]:
            raise WeightsError("An empty prompt needs a tokenizer with a token that ends texts: give a word.")
        if len(encoded) + tokens > positions:
            room = positions - len(encoded)
            change = f"tokens={room}, or a shorter one" if room > 0 else f"shorten it to {positions - 1:,} or fewer"
            raise WeightsError(
                f"The prompt {one[:30]!r} has {len(encoded):,} tokens, and with {tokens:,} more it is longer than the "
                f"{positions:,} that the model can place: {change}."
            )
    heard = _Heard(tokenizer, prompts, shows=isinstance(prompt, str))
    asked = {
        "prompts": ids, "tokens": tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed,
        "vocabulary": checkpoint.vocabulary(saved), "end": end,
    }  # fmt: skip
    machine = machine or for_ranks(layout.world_size)
    with tempfile.TemporaryDirectory() as folder:
        question = Path(folder) / "asked.json"
        question.write_text(json.dumps(asked))
        flags = saved.flags(layout, machine)
        options = {"machine": machine, "recipe": saved.recipe, "hear": heard}
        checkpoint.ranks("generate", layout, question, *flags, **options)
    found = heard.generations()
    return found[0] if isinstance(prompt, str) else found


class _Heard:
    """What the program prints, token by token."""

    def __init__(self, tokenizer, prompts: list[str], shows: bool):
        self.tokenizer, self.prompts, self.shows = tokenizer, prompts, shows
        self.growing = [text.Growing(tokenizer) for _ in prompts]
        self.tokens: list[list[Token]] = [[] for _ in prompts]
        self.speed: float | None = None
        self.begun = False

    def __call__(self, lines: str) -> None:
        for line in lines.splitlines():
            if MARK in line:
                self._token(json.loads(line[line.index(MARK) + len(MARK) - 1 :]))
            elif END in line:
                told = json.loads(line[line.index(END) + len(END) - 1 :])
                self.speed = told["tokens"] / told["seconds"] if told["tokens"] else None
                if self.shows:
                    print()

    def _token(self, told: dict) -> None:
        if self.shows and not self.begun:
            print(self.prompts[0], end="", flush=True)
            self.begun = True
        number = told["prompt"]
        new = self.growing[number].add(told["id"])
        if self.shows:
            print(new, end="", flush=True)
        likeliest = tuple((self.tokenizer.decode([id]), share) for id, share in told["likeliest"])
        word = self.tokenizer.decode([told["id"]])
        self.tokens[number].append(Token(word, told["id"], told["probability"], likeliest))

    def generations(self) -> list[Generation]:
        return [
            Generation(prompt, self.tokenizer.decode(growing.ids), tuple(tokens), self.speed)
            for prompt, growing, tokens in zip(self.prompts, self.growing, self.tokens, strict=True)
        ]


def _settings(prompts, tokens, temperature, top_k, top_p, seed) -> None:
    """Raises WeightsError for what no text can be drawn with."""
    if not prompts:
        raise WeightsError("prompt=[]: give a text, or a list of some.")
    if tokens < 1:
        raise WeightsError(f"tokens={tokens}: how many to add, 1 or more.")
    if temperature is not None and not LEAST_TEMPERATURE <= temperature < float("inf"):
        raise WeightsError(
            f"temperature={temperature:g}: the logits are divided by it, so it is {LEAST_TEMPERATURE} or more, such as "
            "0.8. None takes the likeliest token each time."
        )
    if top_k is not None and top_k < 1:
        raise WeightsError(f"top_k={top_k}: among how many tokens to draw, 1 or more.")
    if top_p is not None and not 0 < top_p <= 1:
        raise WeightsError(f"top_p={top_p:g}: a share of the probability, above 0 and at most 1, such as 0.9.")
    if temperature is None and (top_k is not None or top_p is not None):
        raise WeightsError("top_k and top_p are for drawing, and without a temperature none is done: temperature=1.")
    if not 0 <= seed < 2**63:
        raise WeightsError(f"seed={seed}: a whole number from 0.")
