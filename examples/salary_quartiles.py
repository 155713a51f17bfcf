"""Quartiles of salaries that nobody shows: each of 31 people is a party, and a union learns three numbers.

All salaries are sorted on shares, and only the three quartiles are revealed. Of two ways to sort, the one that takes
the least time on the network is chosen: a sorting network compares few pairs in many steps, ranking compares all pairs
in one.

    python examples/salary_quartiles.py --network 10ms,50Mbit
"""

import argparse

import numpy as np

import shareflow as sf

PEOPLE = 31
QUARTILES = (7, 15, 23)  # places in the order of 31
LIMIT = 20_000.0  # public: salaries a month differ by less


def made_up_salaries() -> np.ndarray:
    """Many low ones and a few high ones."""
    return np.round(np.random.default_rng(11).lognormal(8.2, 0.4, PEOPLE).clip(1_000, 20_000), 2)


@sf.function
def quartiles(*salaries: sf.PrivateTensor) -> sf.PrivateTensor:
    in_order = sf.nn.sort(sf.stack(list(salaries)), axis=0, bound=LIMIT)
    return sf.stack([in_order[place] for place in QUARTILES]).reveal("union")


def main() -> None:
    """Runs it, and the same in the clear beside it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="wan", help="here, loopback, lan, wan, or such as 40ms,100Mbit")
    network = parser.parse_args().network
    salaries = made_up_salaries()
    at_people = [sf.private_tensor(salary, f"person{number}") for number, salary in enumerate(salaries)]
    choice = sf.choose(quartiles, *at_people, network=network)
    clear = np.sort(salaries)[list(QUARTILES)]
    for name, private, plain in zip(("first", "median", "third"), choice(*at_people).numpy(), clear, strict=True):
        print(f"{name:8} {private:9.2f}   in the clear {plain:9.2f}")
    print("\n".join(choice.lines(choice.measure())))


if __name__ == "__main__":
    main()
