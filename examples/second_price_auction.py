"""A sealed auction of several lots: the highest bidder wins and pays the second bid; nobody learns another's bid.

Each bidder gives one bid for each lot. The auctioneer is told who wins each lot and the price, and no losing bid but
the one that is the price. How the two highest bids are found is chosen for the network between the servers: a sorting
network of many steps, or all pairs of bids compared at once.

    python examples/second_price_auction.py --network lan
"""

import argparse

import numpy as np

import shareflow as sf

BIDDERS, LOTS = 12, 6
LIMIT = 100_000.0  # public: no bid is above it


def made_up_bids() -> np.ndarray:
    """Bids in whole units, [BIDDERS, LOTS]."""
    return np.random.default_rng(3).integers(1_000, int(LIMIT), (BIDDERS, LOTS)).astype(float)


@sf.function
def auction(*bids: sf.PrivateTensor) -> tuple[sf.PrivateTensor, sf.PrivateTensor]:
    # Two bids differ by less than the limit: comparing takes 33 bits, not 63.
    highest, bidders = sf.nn.top_k(sf.stack(list(bids)), 2, axis=0, bound=LIMIT)
    return bidders[0].reveal("auctioneer"), highest[1].reveal("auctioneer")


def main() -> None:
    """Runs the auction, and the same in the clear beside it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="wan", help="here, loopback, lan, wan, or such as 40ms,100Mbit")
    network = parser.parse_args().network
    bids = made_up_bids()
    at_bidders = [sf.private_tensor(own, f"bidder{number}") for number, own in enumerate(bids)]
    choice = sf.choose(auction, *at_bidders, network=network)
    winners, prices = choice(*at_bidders)
    in_order = np.sort(bids, 0)
    for lot, (winner, price) in enumerate(zip(winners.numpy(), prices.numpy(), strict=True)):
        clear = f"in the clear bidder {bids[:, lot].argmax()} for {in_order[-2, lot]:.0f}"
        print(f"lot {lot}: bidder {winner:.0f} for {price:.0f}   {clear}")
    print("\n".join(choice.lines(choice.measure())))


if __name__ == "__main__":
    main()
