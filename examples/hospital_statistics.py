"""Two hospitals hold one column each of the same patients; a researcher learns four numbers and nothing else.

The clinic knows the ages, the laboratory the blood pressures. Neither shows a column to anybody. The researcher is
told both means, the covariance, and how many patients score above a public threshold.
"""

import numpy as np

import shareflow as sf

PATIENTS = 400
THRESHOLD = 40.0  # public, as the formula of the score is


def columns() -> tuple[np.ndarray, np.ndarray]:
    """Made-up patients: pressure rises with age."""
    random = np.random.default_rng(7)
    age = random.uniform(20, 90, PATIENTS)
    return age, 95 + 0.6 * age + random.normal(0, 12, PATIENTS)


@sf.function
def statistics(age: sf.PrivateTensor, pressure: sf.PrivateTensor) -> dict[str, sf.PrivateTensor]:
    # A mean of one hospital's column is that hospital's own plaintext; nothing is shared for it.
    mean_age, mean_pressure = age.mean(), pressure.mean()
    covariance = ((age - mean_age) * (pressure - mean_pressure)).mean()
    # Here the columns meet: a comparison on shares, 1 or 0 a patient, and a sum of those.
    score = 0.3 * age + 0.2 * pressure
    results = {
        "mean age": mean_age,
        "mean pressure": mean_pressure,
        "covariance": covariance,
        "above threshold": (score > THRESHOLD).sum(),
    }
    return {name: value.reveal("researcher") for name, value in results.items()}


def main() -> None:
    """Runs the computation, and the same in the clear beside it."""
    age, pressure = columns()
    at_clinic, at_laboratory = sf.private_tensor(age, "clinic"), sf.private_tensor(pressure, "laboratory")
    private = statistics(at_clinic, at_laboratory)
    clear = {
        "mean age": age.mean(),
        "mean pressure": pressure.mean(),
        "covariance": np.mean((age - age.mean()) * (pressure - pressure.mean())),
        "above threshold": np.sum(0.3 * age + 0.2 * pressure > THRESHOLD),
    }
    for name, value in private.items():
        print(f"{name:16} {float(value.numpy()):9.3f}   in the clear {clear[name]:9.3f}")
    cost = statistics.cost(at_clinic, at_laboratory)
    print(f"{cost.rounds} rounds, {cost.online_bytes:,} bytes online, {cost.offline_bytes:,} bytes dealt ahead")


if __name__ == "__main__":
    main()
