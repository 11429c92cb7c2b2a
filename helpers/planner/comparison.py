"""Predictions held against what was measured: our records, other people's tables."""

import html
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from helpers.machine import Machine
from helpers.planner import elsewhere, timelines
from helpers.planner.plans import Plan
from helpers.recipes import accounting, costs
from helpers.runs import Run, one_rank, records
from helpers.runs.results import after_warm_up
from helpers.show import frames
from helpers.show.arguments import checked
from helpers.show.names import told

FOLDERS = (
    "h200",
    "h200/steps",
    "h200/twins",
    "h200/pipeline",
    "h200/sharded",
    "h100-80gb-hbm3/twins",
    "h100-80gb-hbm3",
    "h100-80gb-hbm3/layouts",
    "h100-80gb-hbm3/sharded",
    "h100-80gb-hbm3/pipeline",
)
UNORDERED = ("NVIDIA", *FOLDERS)  # rows of several models, which nobody chooses among
# Made on a host that launched kernels more slowly than that of the other records; its calibration of that day says so.
SLOWER_HOST, ITS_CALIBRATION = ("h200/pipeline", "h200/sharded"), "h200/calibration/slower_host.json"
SUBJECTS = {  # of other people's tables
    "DP, TP, recomputation": ("101", "202", "203", "280"),
    "context parallelism": ("301",),
    "pipelines": ("401",),
    "experts": ("502",),
    "NVIDIA's Llamas": ("NVIDIA",),
}
# Left out: what the rates and the constants of `recipes.costs` were taken from.
TAKEN_FROM = {
    *timelines.RUNS,
    "gpt_1_2b_20_tp2_sp_overlap_profile",  # stage.CUT_SLOWER
    "gpt3_345m_2_bf16_stock",  # stage.LOOP
    "gpt3_345m_eager_4_stock",  # stage.LOOP
    "llama3_8b_tensorwise_dp2_without_cast",  # passes.CAST_SECONDS
}


@dataclass(frozen=True)
class Compared:
    """One run: milliseconds a step and GB of the fullest GPU, predicted and measured (None: not known, or out of
    memory)."""

    table: str
    name: str
    measured_ms: float | None
    predicted_ms: float
    measured_gb: float | None
    predicted_gb: float

    @property
    def error(self) -> float | None:
        """Of the time: -0.05 is a prediction 5 % too short."""
        return None if self.measured_ms is None else self.predicted_ms / self.measured_ms - 1

    @property
    def memory_error(self) -> float | None:
        return None if self.measured_gb is None else self.predicted_gb / self.measured_gb - 1


@told
@dataclass(frozen=True, repr=False)
class Comparison:
    """Many runs, in the order in which they were measured."""

    IN_WORDS = "a comparison, such as planner.with_own()"

    title: str
    runs: tuple[Compared, ...]

    @property
    def timed(self) -> list[Compared]:
        return [run for run in self.runs if run.error is not None]

    @property
    def median_error(self) -> float:
        return median(abs(run.error) for run in self._timed())

    @property
    def worst(self) -> Compared:
        return max(self._timed(), key=lambda run: abs(run.error))

    @property
    def fastest(self) -> Compared:
        """The run that took the shortest step."""
        return min(self._timed(), key=lambda run: run.measured_ms)

    def _timed(self, table: str | None = None) -> list[Compared]:
        """What was timed, of one table or of all.

        Raises:
            ValueError: none of it was.
        """
        if found := [run for run in self.timed if table in (None, run.table)]:
            return found
        known = ", ".join(dict.fromkeys(run.table for run in self.timed))
        what = "none of it was timed" if table is None or not known else f"no table {table!r} was timed"
        raise ValueError(f"{self.title}: {what}." + (f" There are: {known}." if known else ""))

    @checked
    def regret(self, table: str) -> float:
        """What following the plan costs: the measured time of the row planned fastest over the fastest, less 1."""
        rows = self._timed(table)
        chosen = min(rows, key=lambda run: run.predicted_ms)
        return chosen.measured_ms / min(run.measured_ms for run in rows) - 1

    def summary(self):
        """One row a table: how far off, to which side, whether the order is right, and what following it costs."""
        import pandas as pd

        rows = []
        for table in dict.fromkeys(run.table for run in self.timed):
            errors = [run.error for run in self.timed if run.table == table]
            near = sum(abs(error) <= 0.2 for error in errors)
            order = "–" if table in UNORDERED else f"{self.order(table):.2f}"
            regret = "–" if table in UNORDERED else f"{self.regret(table):.0%}"
            sign = f"{median(errors):+.0%}"
            rows.append((table, len(errors), f"{near} of {len(errors)}", sign, order, regret))
        columns = [
            "table",
            "runs",
            "within 20 %",
            "median error, signed",
            "order, Kendall's τ",
            "best plan against best",
        ]
        return pd.DataFrame(rows, columns=columns).set_index("table")

    @checked
    def by_table(self, groups: Mapping[str, Collection[str]]) -> list["Comparison"]:
        """A comparison for each title, of the tables named under it."""
        return [Comparison(title, tuple(r for r in self.runs if r.table in names)) for title, names in groups.items()]

    @checked
    def order(self, table: str) -> float:
        """Kendall's τ between the measured and the predicted order of a table's rows: 1 is the same order."""
        return kendall([(run.measured_ms, run.predicted_ms) for run in self._timed(table)])

    @checked
    def table(self, tables: Iterable[str] = ()):
        """One row a run; `tables` picks some.

        Raises:
            ValueError: there is no such table.
        """
        import pandas as pd

        tables = _among(tables, [run.table for run in self.runs])
        rows = [
            {
                "table": run.table,
                "run": run.name,
                "ms": "out of memory" if run.measured_ms is None else f"{run.measured_ms:,.0f}",
                "predicted": f"{run.predicted_ms:,.0f}",
                "off": "–" if run.error is None else f"{run.error:+.0%}",
                "GB": "–" if run.measured_gb is None else f"{run.measured_gb:.1f}",
                "planned": f"{run.predicted_gb:.1f}",
            }
            for run in self.runs
            if not tables or run.table in tables
        ]
        return pd.DataFrame(rows).set_index(["table", "run"])

    def _sentence(self) -> str:
        if not self.timed:
            return f"{self.title}: none of it was timed."
        worst = self.worst
        return (
            f"{self.title}: {len(self.timed)} runs, off by {self.median_error:.0%} in the median, "
            f"{worst.error:+.0%} at worst ({worst.name})."
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._sentence())}</p>" + (frames.to_html(self.table()) if self.runs else "")

    def __repr__(self) -> str:
        return self._sentence() + (f"\n{self.table().to_string()}" if self.runs else "")


def with_records() -> Comparison:
    """Our recorded runs of GPUs, but for those that the rates were taken from (`TAKEN_FROM`)."""
    found = []
    slow = costs.Rates.from_json(json.loads((records.RECORDED / ITS_CALIBRATION).read_text()))
    for folder in FOLDERS:
        for run in records.recorded(folder):
            if run.path.stem in TAKEN_FROM:
                continue
            machine = Machine.from_json(run.environment["machine"])
            measured = after_warm_up(run.series("iteration-time")).median() * 1e3
            rates = costs.of(machine)
            step = costs.step(
                run.recipe, machine, replace(rates, launch=slow.launch) if folder in SLOWER_HOST else rates
            )
            parts = accounting.memory(run.recipe, machine)
            memory = (
                sum(parts.values()) - parts["other"]
            ) / 1e9  # torch counts tensors, not the context nor a graph's pool
            peak = run.peak_memory_bytes and run.peak_memory_bytes / 1e9
            found.append(Compared(folder, run.path.stem, measured, step.milliseconds, peak, memory))
    return Comparison("Our records", tuple(found))


@checked
def with_own(plans: Iterable[Plan], trained: Iterable[Run]) -> Comparison:
    """Plans of a learner's own beside the runs that they were made for, in the same order; `table` is a run's name."""
    plans, trained = list(plans), list(trained)
    if not plans or len(plans) != len(trained):
        raise ValueError(f"{len(plans)} plans and {len(trained)} runs: each plan wants the run that it was made for.")
    found = []
    for plan, run in zip(plans, trained, strict=True):
        if plan.recipe.model != run.recipe.model or plan.recipe.layout != run.recipe.layout:
            raise ValueError(
                f"The plan of {plan.recipe.name}, {plan.name}, was made for another run than {run.recipe_name}."
            )
        measured = float(after_warm_up(run.series("iteration-time")).median() * 1e3)
        peak = run.peak_memory_bytes and run.peak_memory_bytes / 1e9
        tensors = plan.gigabytes - plan.memory["other"] / 1e9
        found.append(Compared(run.recipe_name, plan.name, measured, plan.step.milliseconds, peak, tensors))
    return Comparison("Here", tuple(found))


@checked
def with_others(tables: Iterable[str] = ()) -> Comparison:
    """Tables that others measured (`elsewhere.rows`); `tables` picks some by name."""
    wanted = _among(tables, [row.table for row in elsewhere.rows()])
    found = [
        Compared(
            row.table,
            row.name,
            row.milliseconds,
            costs.step(row.recipe, row.machine).milliseconds,
            row.gigabytes,
            sum(accounting.memory(row.recipe, row.machine).values()) / 1e9,
        )
        for row in elsewhere.rows()
        if not wanted or row.table in wanted
    ]
    return Comparison("Measured by others", tuple(found))


def _among(wanted: Iterable[str], known: Iterable[str]) -> set[str]:
    """The tables that are asked for, which are among those there are."""
    wanted, known = set(wanted), list(dict.fromkeys(known))
    if unknown := wanted.difference(known):
        raise ValueError(f"There is no table {min(unknown)!r}: there are {', '.join(known)}.")
    return wanted


@checked
def with_ranks_alone(label: str = "h100-80gb-hbm3") -> Comparison:
    """Ranks of jobs that others ran on eight GPUs, each alone on one of ours (`launch.one_of_many`).

    Milliseconds are those for which the GPU computes in a step. GB are tensors and CUDA's context, NCCL left out.
    """
    found = []
    for one in one_rank.recorded(label):
        machine = Machine.from_json(one.environment["machine"])
        found.append(
            Compared(
                one.described["name"].partition("_")[0],
                one.described["name"],
                one.busy_milliseconds,
                costs.computing(one.recipe, machine, one.stage) * 1e3,
                (one.peak_bytes + one.outside_bytes) / 1e9,
                sum(accounting.memory(one.recipe, machine, one.stage).values()) / 1e9,
            )
        )
    return Comparison("One rank of many", tuple(found))


def kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's τ-b of pairs: the share of couples in the same order less the share in the other, ties left out."""
    agree = against = tied_first = tied_second = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[:i]:
            first, second = (a > c) - (a < c), (b > d) - (b < d)
            agree += first * second > 0
            against += first * second < 0
            tied_first += first == 0 and second != 0
            tied_second += second == 0 and first != 0
    both = ((agree + against + tied_first) * (agree + against + tied_second)) ** 0.5
    return (agree - against) / both if both else 1.0
