"""`shareflow.choose`: of all ways to compute a program, the one with the least predicted time on a network."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shareflow.audit.cost import Cost, cost_of
from shareflow.compiler.cost.decide import Alternative, Decisions, variant_text
from shareflow.compiler.cost.network import Network
from shareflow.compiler.cost.predict import Prediction, predict_program
from shareflow.compiler.cost.speeds import Speeds, current_speeds, is_shipped
from shareflow.compiler.cost.work import Work, work_of
from shareflow.errors import PlanError
from shareflow.function import Function, Traced
from shareflow.protocol.choices import NONE, Choices
from shareflow.protocol.default import current_protocol
from shareflow.protocol.spdz import SPDZ
from shareflow.runtime.plan import Plan


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a program is predicted to take in one way to compute it."""

    choices: Choices
    cost: Cost
    prediction: Prediction


@dataclass(frozen=True, eq=False)
class Choice:
    """A function with the variants that were chosen for it; called as the function itself.

    Args:
        function: that was given.
        arguments: that were given, for measuring.
        network: between the parties.
        offline: whether the dealer's part counts.
        chosen: the way of the least predicted time, which calls take.
        default: the way without choices.
        alternatives: all that was looked at, site by site, best first.
        speeds: of the machines, as predictions take them.
    """

    function: Function[Any]
    arguments: tuple[Any, ...]
    network: Network
    offline: bool
    chosen: Outlook
    default: Outlook
    alternatives: tuple[Alternative, ...]
    speeds: Speeds

    @property
    def choices(self) -> Choices:
        """The variants, for ``with choice.choices:``, as around :func:`shareflow.plan`."""
        return self.chosen.choices

    @property
    def prediction(self) -> Prediction:
        """Seconds of one call, by where they go."""
        return self.chosen.prediction

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with self.choices:
            return self.function(*arguments, **options)

    def measure(self, repeats: int = 5, default: bool = False) -> Prediction:
        """The same seconds with computing as it is measured in this process, the median of some calls.

        What the network takes stays predicted: nothing is sent in one process. Both servers' parts run one after the
        other here, so that apart from each other they take half of it.
        """
        way = self.default if default else self.chosen
        with way.choices:
            self.function.timed(*self.arguments)
            timings = [self.function.timed(*self.arguments)[1] for _ in range(repeats)]
        online, offline = (statistics.median(getattr(t, part) for t in timings) for part in ("online", "offline"))
        if self.network.apart:
            return way.prediction.with_computing(online / 2, offline if self.offline else 0.0)
        return way.prediction.with_computing(online, offline)

    def lines(self, measured: Prediction | None = None) -> list[str]:
        """What was chosen and why, in a few lines of text."""
        return lines_of(self.network, self.chosen, self.default, self.speeds, measured)


def choose(
    function: Function[Any],
    *arguments: Any,
    network: str | Network = "here",
    offline: bool | None = None,
    speeds: Speeds | None = None,
) -> Choice:
    """Chooses how a function computes comparisons, maxima and sorting: with the least predicted time on a network.

    Nothing is run. The function is traced with each site's best variant, and by default; where sites run side by side
    the sum over sites is not the whole's time, and the default stays if the whole is no faster.

    Args:
        function: made by :func:`shareflow.function`.
        arguments: of the form that it will be called with.
        network: "here" (one process), "loopback", "lan", "wan", "RTT,BANDWIDTH" such as "40ms,100Mbit", or a Network.
        offline: whether the dealer's part counts, too. By default where parties share a process: else it runs
            ahead.
        speeds: of the machines; by default those that `shareflow calibrate` measured, or those that came along.

    Raises:
        ConfigError: no such network.
        PlanError: what is given is no shareflow.function, or the protocol is not SPDZ.
    """
    if not isinstance(function, Function):
        raise PlanError(
            f"choose takes a function made by shareflow.function and its arguments; got {type(function).__name__}. "
            "Decorate it with @sf.function."
        )
    protocol, line = _servers_and_dealer(), Network.parse(network)
    counted = not line.apart if offline is None else offline
    fast = speeds or current_speeds()

    def looked_at(choices: Choices) -> Outlook:
        with choices:
            traced = function.trace(*arguments)
        return Outlook(choices, traced.cost, _predicted(traced, protocol, line, fast, counted))

    with (decisions := Decisions(line, fast, counted)):
        function.trace(*arguments)
    function.forget(decisions)
    default = looked_at(NONE)
    best = looked_at(decisions.choices) if decisions.choices else default
    if best.prediction.seconds >= default.prediction.seconds:
        best = default
    return Choice(function, arguments, line, counted, best, default, decisions.alternatives, fast)


def _servers_and_dealer() -> SPDZ:
    protocol = current_protocol()
    if not isinstance(protocol, SPDZ):
        raise PlanError(f"Variants are chosen for SPDZ; the protocol here is {type(protocol).__name__}.")
    return protocol


def _predicted(traced: Traced, protocol: SPDZ, network: Network, speeds: Speeds, offline: bool) -> Prediction:
    program = traced.program
    work = work_of(program.graph, (*program.outputs, *program.effects))
    return predict_program(traced.cost, work, protocol.servers, protocol.dealer, network, speeds, offline)


# --- plans --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PlanChoice:
    """A plan traced with the chosen variants; predictions by the name of its graph, chosen and default."""

    plan: Plan
    network: Network
    chosen: dict[str, Outlook]
    default: dict[str, Outlook]
    alternatives: tuple[Alternative, ...]
    speeds: Speeds

    @property
    def choices(self) -> Choices:
        """The variants that stand in the plan's settings."""
        return next(iter(self.chosen.values())).choices

    @property
    def seconds(self) -> float:
        """Predicted, summed over the plan's graphs."""
        return _total(self.chosen.values())


def choose_plan(
    make: Callable[[], Plan],
    protocol: SPDZ,
    network: str | Network,
    *,
    offline: bool = False,
    speeds: Speeds | None = None,
) -> PlanChoice:
    """A plan with the variants of the least predicted time, summed over its graphs.

    Args:
        make: traces the plan; it is called two or three times.
        protocol: that the plan is for.
        network: as for :func:`choose`.
        offline: whether the dealer's part counts; usually it runs ahead.
        speeds: as for :func:`choose`.

    Raises:
        ConfigError: no such network.
    """
    line, fast = Network.parse(network), speeds or current_speeds()

    def looked_at(choices: Choices) -> tuple[Plan, dict[str, Outlook]]:
        with choices:
            plan = make()
        return plan, {
            name: _outlook(plan, name, choices, protocol, line, fast, offline) for name in plan.manifest.graphs
        }

    with (decisions := Decisions(line, fast, offline)):
        make()
    plan, default = looked_at(NONE)
    chosen = default
    if decisions.choices:
        other, outlooks = looked_at(decisions.choices)
        if _total(outlooks.values()) < _total(default.values()):
            plan, chosen = other, outlooks
    return PlanChoice(plan, line, chosen, default, decisions.alternatives, fast)


def _total(outlooks: Iterable[Outlook]) -> float:
    return sum(outlook.prediction.seconds for outlook in outlooks)


def _outlook(
    plan: Plan, name: str, choices: Choices, protocol: SPDZ, network: Network, speeds: Speeds, offline: bool
) -> Outlook:
    cost, work = _counted(plan, name)
    return Outlook(
        choices, cost, predict_program(cost, work, protocol.servers, protocol.dealer, network, speeds, offline)
    )


def _counted(plan: Plan, name: str) -> tuple[Cost, Work]:
    graph = plan.graph(name)
    # A cut plan's graph holds what its results need, and nothing else.
    ends = [op for op in graph.get_operations() if not any(output.consumers() for output in op.outputs)]
    return cost_of(graph, ends), work_of(graph, ends)


# --- in words -----------------------------------------------------------------------------------------------------


def lines_of(
    network: Network, chosen: Outlook, default: Outlook, speeds: Speeds, measured: Prediction | None = None
) -> list[str]:
    """What was chosen, predicted and measured, a line each."""
    lines = [f"network     {network}"]
    lines += [f"chosen      {site}: {variant_text(site, variant)}" for site, variant in chosen.choices.table]
    if not chosen.choices:
        lines.append("chosen      the defaults")
    for name, way in (("predicted", chosen), ("by default", default)):
        counted = (
            f"{way.cost.rounds} rounds, {way.cost.online_bytes:,} bytes online, {way.cost.offline_bytes:,} offline"
        )
        lines.append(f"{name:11} {way.prediction}; {counted}")
    if measured is not None:
        about = "computing measured in one process, the network by formula" if network.apart else "in one process"
        lines.append(f"measured    {measured}; {about}")
    if is_shipped(speeds):
        lines.append(f"speeds      those that came along, of {speeds.machine}; `shareflow calibrate` measures yours")
    return lines
