"""A training run as a value: model, layout, precision, speed, batch and schedule, and the command they give."""

import hashlib
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from helpers.corpus import Blend, Corpus
from helpers.machine import CPU, PROJECT, Machine, given, here, short_path
from helpers.processes import checkpoints
from helpers.recipes import accounting, differences, fit, preflight
from helpers.recipes.changes import stock_asked
from helpers.recipes.command import (
    Command,
    data_flags,
    device_flags,
    run_variables,
    speed_flags,
    torchrun,
    without_engine_states,
)
from helpers.recipes.flag import Flag, require_group
from helpers.recipes.layout import Layout
from helpers.recipes.names import OURS, told
from helpers.recipes.nodes import Nodes
from helpers.recipes.preflight import ranges
from helpers.recipes.settings import PARTS, Batch, Checkpoints, Logging, Model, Precision, Schedule, Speed
from helpers.show import frames
from helpers.show.arguments import checked, fits, in_words
from helpers.show.message import Absence
from helpers.show.names import nearest
from helpers.show.numbers import as_typed, cut
from helpers.show.tables import whole_sentences

ENTRY_SCRIPT = PROJECT / "helpers" / "ranks" / "pretrain_gpt.py"
RUN_DIRECTORY = "runs/<run>"
LONGEST_ROW = 400  # letters of a value, where a recipe is shown


@told
@dataclass(frozen=True, repr=False)
class Recipe:
    """A training run as a value: nothing happens until `launch.train(recipe, data)`.

    `tokenizer` is what to hand to `corpus.prepare(tokenizer=…)`. `scaled_for` names the machine of `scaled_to`. `stock`
    leaves out every change that we make to Megatron, `without` some by name: `python -m helpers.ranks.repairs` lists
    them. `pretrained` is the folder of the checkpoint whose weights training begins with: a run's, or what
    `weights.from_hugging_face` made.
    """

    IN_WORDS = "a recipe, such as recipes.gpt3_345m()"

    name: str
    model: Model
    layout: Layout = Layout()
    precision: Precision = Precision()
    speed: Speed = Speed()
    batch: Batch = Batch()
    schedule: Schedule = Schedule()
    checkpoints: Checkpoints = Checkpoints()
    logging: Logging = Logging()
    tokenizer: str = "gpt2"
    extra_flags: tuple[str, ...] = ()
    scaled_for: str | None = None
    stock: bool = field(default_factory=stock_asked)
    without: tuple[str, ...] = ()
    pretrained: str | None = None

    @classmethod
    def from_json(cls, described: dict) -> "Recipe":
        """A recipe from a run's recipe.json: what is missing there has its default, what is unknown is passed over.

        Raises:
            ValueError: a value in it is of another kind than its field, or one is missing that has no default.
        """
        return cls(**{"stock": False} | _from_json(cls, described, ""))

    def with_(self, *unnamed, **changes) -> "Recipe":
        """A copy with some fields changed, whichever part they belong to: `with_(tensor_parallel=2, lr=3e-4)`.

        Raises:
            TypeError: for a name that no part has, a part that is none, or a value without its name; the message names
                what was meant.
        """
        if unnamed:
            dicts = "a dict of them is written with_(**changes)" if isinstance(unnamed[0], dict) else "with_(lr=3e-4)"
            raise TypeError(f"recipe.with_ takes fields by their names, and {as_typed(unnamed[0])} has none: {dicts}.")
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        owners = {f.name: part for part, value in parts.items() if hasattr(value, "flags") for f in fields(value)}
        updates: dict[str, dict] = {}
        own: dict = {}
        for name, value in changes.items():
            if name in PARTS and not isinstance(value, PARTS[name]):
                hint = f"with_({fields(PARTS[name])[0].name}=…) changes one field of it."
                raise TypeError(f"{name}={as_typed(value)}: this part of a recipe is a {PARTS[name].__name__}. {hint}")
            if name == "pretrained" and value is not None:
                own[name] = str(checkpoints.folder_of(given(value, "recipe.with_(pretrained={})")))
            elif name in parts:
                own[name] = value
            elif name in owners:
                updates.setdefault(owners[name], {})[name] = value
            else:
                meant = nearest(name, [*owners, *parts], OURS)
                hint = f" Did you mean {meant}?" if meant else f" There are: {', '.join(sorted(owners))}."
                raise TypeError(f"A recipe has no {name!r}.{hint}")
        for part, values in updates.items():
            own[part] = replace(own.get(part, parts[part]), **values)
        return replace(self, **own)

    @property
    def micro_batches(self) -> int:
        """Micro-batches that each rank takes in a step: m, one at least."""
        at_once = self.batch.micro_batch_size * max(1, self.layout.data_parallel)
        return max(1, self.batch.global_batch_size // at_once)

    def require(self) -> None:
        """Nothing for a recipe with whose sizes can be counted, whether they divide evenly or not.

        Raises:
            ValueError: one of them is none; the message names it.
        """
        for part in (self.model, self.layout, self.precision, self.batch):
            ranges.require(part)

    @checked
    def scaled_to(self, machine: Machine | Literal["cpu"]) -> "Recipe":
        """The same architecture at a size that trains there: see `fit.fit`."""
        preflight.require_values(self)
        return fit.fit(self, CPU if machine == "cpu" else machine)

    @checked
    def flag_groups(
        self,
        data: Corpus | Blend | None,
        machine: Machine | None = None,
        run_directory: Path | str = RUN_DIRECTORY,
        entry_script: Path | str | None = None,
    ) -> dict[str, list[Flag]]:
        """Every flag of the run with its reason, by subject. `data` is a corpus, a blend, or None for `--mock-data`."""
        preflight.require_values(self)
        for asked, path in (("run_directory", run_directory), ("entry_script", entry_script)):
            if path is not None:
                given(path, f"{asked}={{}}")
        machine = machine or here()
        groups = {
            "model": self.model.flags(),
            "parallelism": self.layout.flags(),
            "precision": self.precision.flags(),
            "batch and schedule": self.batch.flags() + self.schedule.flags(),
            "data": data_flags(self, data, run_directory),
            "device": device_flags(self, machine, entry_script),
            "logging and checkpoints": self.logging.flags(str(run_directory))
            + self.checkpoints.flags(f"{run_directory}/checkpoints"),
        }
        if self.pretrained is not None:
            why = "weights to begin with, until the run has a checkpoint of its own"
            groups["logging and checkpoints"].append(Flag("--pretrained-checkpoint", self.pretrained, why))
            groups["logging and checkpoints"] += without_engine_states(machine)
        if self.layout.megatron_fsdp:  # its format stands with it, whether something is saved or not
            kept = groups["logging and checkpoints"]
            groups["logging and checkpoints"] = [flag for flag in kept if flag.name != "--ckpt-format"]
        whole = self.layout.distributed_optimizer and not self.layout.megatron_fsdp
        if self.checkpoints.save_interval is not None and whole:
            why = "the optimizer's state, too, can be loaded by another layout"
            groups["logging and checkpoints"].append(Flag("--dist-ckpt-optim-fully-reshardable", None, why))
        if machine.device == "cuda":
            groups["speed"] = speed_flags(self, machine, entry_script)
        if self.extra_flags:
            groups["your own"] = [Flag(word, None, "") for word in self.extra_flags]
        taken = {flag.name for name, flags in groups.items() if name != "device" for flag in flags}
        groups["device"] = [flag for flag in groups["device"] if flag.name not in taken]
        return groups

    @checked
    def flags(
        self, data: Corpus | Blend | None, machine: Machine | None = None, run_directory: Path | str = RUN_DIRECTORY
    ) -> list[str]:
        groups = self.flag_groups(data, machine, run_directory)
        return [word for flags in groups.values() for flag in flags for word in flag.words]

    @checked
    def command(
        self,
        data: Corpus | Blend | None,
        machine: Machine | None = None,
        run_directory: Path | str = RUN_DIRECTORY,
        entry_script: Path | str | None = None,
        nodes: Nodes | None = None,
    ) -> Command:
        """The `torchrun` line, as it is run. `entry_script` may be `pretrain_gpt.py` of your own Megatron-LM clone.
        `nodes`: the line of every one of these hosts; None: all ranks are on one."""
        machine = machine or here()
        groups = self.flag_groups(data, machine, run_directory, entry_script)
        program = torchrun(self, nodes)
        if entry_script is not None and machine.device == "cpu":
            program += ("-m", "helpers.ranks.cpu.device")
        script = ENTRY_SCRIPT.relative_to(PROJECT)
        if entry_script is not None:  # one that is not here is shown as it is named
            named = Path(entry_script).expanduser()
            script = named.resolve() if named.exists() else named
        variables = run_variables(self, machine, entry_script, run_directory, nodes)
        return Command((*program, str(script)), groups, variables, nodes)

    @checked
    def explain(self, data: Corpus | Blend | None = None, machine: Machine | None = None, group=None):
        """A table of flag, value and reason (pandas); `group` picks one of `flag_groups`. No flag: a sentence.

        Raises:
            ValueError: there is no such group.
        """
        require_group(group)
        import pandas as pd

        groups = self.flag_groups(data, machine)
        rows = [
            (name, flag.name, " ".join(flag.values), flag.why)
            for name, flags in groups.items()
            if group in (None, name)
            for flag in flags
        ]
        if not rows:
            return Absence(f'No flag of the group "{group}" is needed here: what Megatron does by itself fits.')
        table = pd.DataFrame(rows, columns=["group", "flag", "value", "why"])
        table = table.set_index(["group", "flag"]) if group is None else table.drop(columns="group").set_index("flag")
        return whole_sentences(table)

    @checked
    def diff(self, other, data: Corpus | Blend | None = None, machine: Machine | None = None, group=None):
        """The flags in which this recipe differs from another, or from a bash script (its path): `differences.diff`."""
        return differences.diff(self, other, data, machine, group)

    @checked
    def fingerprint(self, data: Corpus | Blend | None) -> str:
        """Twelve hex digits that stand for all that decides the weights: model, layout, schedule, corpus, changes,
        the weights it begins with."""
        schedule = replace(self.schedule, exit_interval=None)
        parts = (self.model, self.layout, self.precision, self.speed, self.batch, schedule)
        ours = "stock" if self.stock else tuple(sorted(self.without))
        identity = repr((parts, self.extra_flags, ours, getattr(data, "fingerprint", "mock")))
        if self.pretrained is not None:
            identity += repr((self.pretrained, checkpoints.latest(Path(self.pretrained))))
        return hashlib.sha256(identity.encode()).hexdigest()[:12]

    def _repr_html_(self) -> str:
        return frames.to_html(self._table(), header=False)

    def __repr__(self) -> str:
        return "\n".join(f"{name:<12}{value}" for name, value in self._table()[""].items())

    def _table(self):
        import pandas as pd

        if problems := preflight.wrong_values(self):
            told = {problem.asked: f"{problem.why} {problem.change}" for problem in problems}
            return pd.DataFrame({"": {"recipe": f"{cut(self.name)} cannot work"} | told})
        m, b, s = self.model, self.batch, self.schedule
        rows = {
            "recipe": f"{self.name}" + (f" (scaled to {self.scaled_for})" if self.scaled_for else ""),
            "model": f"{m.num_layers} layers × {m.hidden_size}, {m.num_attention_heads} heads, "
            f"sequence {m.sequence_length:,}, vocabulary {m.vocab_size:,}",
            "parameters": f"{accounting.parameters(m)['parameters'].sum():,}",
            "layout": self.layout.name,
            "precision": self.precision.name,
            "batch": f"{b.global_batch_size} samples a step, {b.micro_batch_size} at once on each rank",
            "schedule": f"{s.train_iters:,} steps, "
            f"{s.train_iters * b.global_batch_size * m.sequence_length:,} tokens, learning rate {s.lr:g}",
        }
        if self.pretrained is not None:
            rows["begins with"] = short_path(self.pretrained)
        if self.stock:
            rows["Megatron"] = "stock: none of our changes"
        elif self.without:
            rows["Megatron"] = f"our changes without {', '.join(self.without)}"
        return pd.DataFrame({"": {name: cut(value, LONGEST_ROW) for name, value in rows.items()}})


def _from_json(kind: type, described: dict, within: str) -> dict:
    """The fields of a recipe, or of one of its parts, by name, each of the kind that it must be."""
    if not isinstance(described, dict):
        raise ValueError(
            f"{within.rstrip('.') or 'the recipe'} is {as_typed(described)}, where a dict of its fields belongs"
        )
    found = {}
    for field_ in fields(kind):
        name, part = field_.name, PARTS.get(field_.name)
        if name not in described:
            if field_.default is MISSING and field_.default_factory is MISSING:
                raise ValueError(f"{within}{name} is missing")
            continue
        value = tuple(described[name]) if isinstance(described[name], list) else described[name]
        if part and isinstance(value, dict):
            value = part(**_from_json(part, value, f"{name}."))
        if not fits(value, field_.type if not within else field_.type | None):
            raise ValueError(f"{within}{name} is {as_typed(value)}, where {in_words(field_.type)} belongs")
        found[name] = value
    return found
