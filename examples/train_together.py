"""Two hospitals train one model on the same patients; neither shows its columns, and nobody but a researcher sees it.

The clinic knows ages and weights, the laboratory blood values and who fell ill. The plan has an entry for each thing
that is ever done: start with a model, learn from one batch, give the model to the researcher, predict for a patient.
What a plan does not have cannot be asked for: there is no entry that shows a column.

`shareflow party` runs such a plan between machines (docs/plans.md). Here all parts run in this process, cut and put
together just as there: a rehearsal, which protects nothing.
"""

import numpy as np

import shareflow as sf
from shareflow.runtime.rehearsal import insecure_rehearsal

BATCH, RATE = 32, 2.0  # public, like everything that stands in the plan


def start(weights: sf.PrivateTensor) -> dict[str, sf.PrivateTensor]:
    """The model before training, from the researcher."""
    return {"weights": weights}


def learn(
    weights: sf.PrivateTensor, clinic: sf.PrivateTensor, laboratory: sf.PrivateTensor, ill: sf.PrivateTensor
) -> dict[str, sf.PrivateTensor]:
    """One step of gradient descent on one batch."""
    x = sf.concat([clinic, laboratory], axis=1)
    error = sf.sigmoid(x @ weights) - ill
    new = weights - (x.T @ error) * (RATE / BATCH)
    # A product has more bits behind the point than the weights it came from; a state is kept in one form.
    return {"weights": new.at_scale(weights.fractional_bits)}


def model(weights: sf.PrivateTensor) -> sf.PrivateTensor:
    """The trained model, for the researcher alone."""
    return weights.reveal("researcher")


def predict(x: sf.PrivateTensor, weights: sf.PrivateTensor) -> sf.PrivateTensor:
    """The risk of patients that a doctor asks about; the doctor learns it, and nothing of the model besides."""
    return sf.sigmoid(x @ weights).reveal("doctor")


def make_plan() -> sf.Plan:
    """All that the parties will ever compute together, in the order in which state comes to be."""
    return sf.plan(
        {
            "start": sf.Entry(start, {"weights": sf.Input("researcher", (4, 1))}, keeps=["weights"]),
            "learn": sf.Entry(
                learn,
                {
                    "clinic": sf.Input("clinic", (BATCH, 2)),
                    "laboratory": sf.Input("laboratory", (BATCH, 2)),
                    "ill": sf.Input("laboratory", (BATCH, 1)),
                },
                keeps=["weights"],
            ),
            "model": sf.Entry(model),
            "predict": sf.Entry(predict, {"x": sf.Input("doctor", (4,))}, batch_sizes=[1, 8]),
        }
    )


def patients(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Made-up patients: four columns, scaled, and who fell ill."""
    random = np.random.default_rng(5)
    columns = random.normal(0, 1, (count, 4))
    risk = 1 / (1 + np.exp(-columns @ [1.5, -1.0, 0.5, 2.0]))
    return columns, (random.random(count) < risk).astype(float)[:, None]


def main() -> None:
    """Trains and predicts, and the same in the clear beside it."""
    plan = make_plan()
    print(f"fingerprint {plan.fingerprint}")
    columns, ill = patients(4 * BATCH)
    clear = np.zeros((4, 1))

    with sf.Session() as session:

        def run(graph: str, inputs: dict[str, np.ndarray], state=None):
            return insecure_rehearsal(plan, graph, inputs, session, state)

        state = run("start", {"weights": np.zeros((4, 1))}).state
        for first in range(0, len(columns), BATCH):
            x, y = columns[first : first + BATCH], ill[first : first + BATCH]
            state = run("learn", {"clinic": x[:, :2], "laboratory": x[:, 2:], "ill": y}, state).state
            clear -= x.T @ (1 / (1 + np.exp(-x @ clear)) - y) * (RATE / BATCH)
        private = run("model", {}, state).results["result"]
        risks = run("predict@8", {"x": columns[:8]}, state).results["result"]

    print("model, private     ", np.round(private.ravel(), 3))
    print("model, in the clear", np.round(clear.ravel(), 3))
    difference = np.abs(risks - 1 / (1 + np.exp(-columns[:8] @ clear))).max()
    print(f"risks of eight patients differ by at most {difference:.1e}")
    for graph in plan.manifest.graphs.values():
        print(f"{graph.name}: inputs of {', '.join(sorted({t.party for t in graph.inputs})) or 'nobody'}")


if __name__ == "__main__":
    main()
