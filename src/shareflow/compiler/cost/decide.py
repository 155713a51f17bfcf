"""Decides, for each site of a program while it is traced, which variant takes the least time.

Costs of steps add up along the rounds, so that each site is decided for itself: a comparison by looking at all layouts
of which none is better in every way; a maximum by the best sizes of groups, found from the last level to the first; a
sort by both of its ways. Comparisons inside a maximum count with the layout that is best for their own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shareflow.compiler.cost import price as pricing
from shareflow.compiler.cost.network import Network
from shareflow.compiler.cost.predict import seconds_of
from shareflow.compiler.cost.price import Comparisons, Price
from shareflow.compiler.cost.speeds import Speeds
from shareflow.nn.ranking import BINARY, NETWORK, RANKING, Maximum, Sorting
from shareflow.protocol.choices import Choices, Chooser, Site
from shareflow.protocol.functionality.comparison import Compared, Layout

# Sizes of groups that are looked at; besides these, all of what is left.
_WIDTHS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256)
# Pairs in one step: their comparisons are there at once, in memory as well.
_PAIRS = 1 << 20


@dataclass(frozen=True)
class Alternative:
    """One way to compute a site, and what it would add to the program's time."""

    site: Site
    variant: Any
    price: Price
    seconds: float
    default: bool
    chosen: bool

    @property
    def text(self) -> str:
        """The variant in words."""
        return variant_text(self.site, self.variant)


class Decisions(Chooser, Comparisons):
    """Choices that are made while they are asked for.

    Args:
        network: between the parties.
        speeds: of their machines.
        offline: whether what the dealer does counts; in one process it does.
    """

    def __init__(self, network: Network, speeds: Speeds, offline: bool) -> None:
        self.network, self.speeds, self.offline = network, speeds, offline
        self._looked_at: dict[Site, tuple[Alternative, ...]] = {}
        self._best: dict[Compared, tuple[Layout, Price]] = {}

    def variant(self, site: Site, default: Any) -> Any:
        """The one that takes the least time; the default where another is no better."""
        if site not in self._looked_at:
            weighed = [
                (self.seconds(price), variant != default, variant, price)
                for variant, price in self._alternatives(site, default).items()
            ]
            weighed.sort(key=lambda one: one[:2])
            if not weighed:
                return default
            best = weighed[0][2]
            self._looked_at[site] = tuple(
                Alternative(site, variant, price, seconds, variant == default, variant == best)
                for seconds, _, variant, price in weighed
            )
        return next(one.variant for one in self._looked_at[site] if one.chosen)

    def price(self, site: Compared) -> Price:
        if site not in self._best:
            layouts = pricing.layouts_to_weigh(site.bits, min(site.thresholds, 2))
            priced = [(layout, pricing.compare(site, layout)) for layout in layouts]
            self._best[site] = min(priced, key=lambda pair: self.seconds(pair[1]))
        return self._best[site][1]

    def seconds(self, price: Price) -> float:
        """What a step adds to the program's time here."""
        return seconds_of(price, self.network, self.speeds, self.offline)

    @property
    def table(self) -> tuple[tuple[Site, Any], ...]:
        return self.choices.table

    @property
    def choices(self) -> Choices:
        """What was decided, where it is not the default."""
        return Choices.of({one.site: one.variant for one in self.alternatives if one.chosen and not one.default})

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """All that was looked at: site by site, best first."""
        return tuple(one for looked in self._looked_at.values() for one in looked)

    def _alternatives(self, site: Site, default: Any) -> dict[Any, Price]:
        if isinstance(site, Compared):
            layouts = {*pricing.layouts_to_weigh(site.bits, min(site.thresholds, 2)), default}
            return {layout: pricing.compare(site, layout) for layout in sorted(layouts, key=repr)}
        if isinstance(site, Maximum):
            variants = {default, BINARY, self._best_groups(site)}
            if site.count > 2 and site.count * (site.count - 1) // 2 * site.lines <= _PAIRS:
                variants.add((site.count,))
            return {widths: pricing.maximum(site, widths, self) for widths in sorted(variants)}
        if isinstance(site, Sorting):
            ways = [NETWORK]
            if site.count * (site.count - 1) // 2 * site.lines <= _PAIRS:
                ways.append(RANKING)
            return {way: pricing.sorting(site, way, self) for way in ways}
        return {}

    def _best_groups(self, site: Maximum) -> tuple[int, ...]:
        """Groups of the least time in all, from the last level to the first: what is left decides alone."""
        known: dict[int, tuple[float, tuple[int, ...]]] = {}

        def best(count: int) -> tuple[float, tuple[int, ...]]:
            if count == 1:
                return 0.0, ()
            if count not in known:
                options = []
                for width in sorted({w for w in _WIDTHS if w < count} | {count}):
                    if width > 2 and count * (width - 1) // 2 * site.lines > _PAIRS:
                        continue
                    here = self.seconds(pricing.level(count, width, site.lines, site.bits, site.places, self))
                    rest, after = best(-(-count // width))
                    options.append((here + rest, (width, *after)))
                known[count] = min(options)
            return known[count]

        return best(site.count)[1]


def variant_text(site: Site, variant: Any) -> str:
    """A variant in words."""
    if isinstance(site, Maximum):
        return "groups of " + ", ".join(map(str, variant)) if variant else "neighbours in twos"
    if isinstance(site, Sorting):
        return "all pairs, ranked" if variant == RANKING else "sorting network"
    return str(variant)
