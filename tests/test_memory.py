"""Memory: flat over thousands of predictions and operations, and in proportion to the batch.

Each measurement is a process of its own: what other tests left behind does not count.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")

REPEAT = """
import gc, json, sys
import keras
import numpy as np
import shareflow as sf

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

layers = [keras.Input((16,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
plain = keras.Sequential(layers)
model = sf.private_model(plain, owner="model-owner")
x = np.random.default_rng(0).normal(size=(4, 16))
shared = sf.private_tensor(x, "alice").shared(sf.SPDZ())

def prediction():
    model.predict(x, receiver="client")

def operations():
    y = sf.relu(shared * shared)
    (y * sf.private_tensor(x, "bob")).reveal("client").numpy()

def operation():
    (shared + 1).reveal("client").numpy()

def models():
    sf.private_model(plain, owner="model-owner").predict(x, receiver="client")

what, warm_up, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(warm_up):
    globals()[what]()
before = resident()
for _ in range(count):
    globals()[what]()
print(json.dumps(resident() - before))
"""

BATCH = """
import sys
import numpy as np
import shareflow as sf
from shareflow import networks

model = sf.private_model(networks.network_b(sys.argv[2]), owner="model-owner")
batch = int(sys.argv[1])
for _ in range(3):
    model.predict(np.zeros((batch, 28, 28, 1), np.float32), receiver="client", batch_size=batch)
with open("/proc/self/status") as file:
    peak, = (line.split()[1] for line in file if line.startswith("VmHWM"))
print(int(peak) / 1024)
"""


def measure(program, *arguments):
    """What a program prints: megabytes."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# A tensor that TensorFlow keeps for each stream would be 600 bytes a time, and 7 MB after 500 operations.
@pytest.mark.parametrize("what", ["prediction", pytest.param("operations", marks=pytest.mark.slow)])
def test_memory_is_flat(what):
    assert measure(REPEAT, what, 200, 500) < 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["prediction", "operations", "operation"])
def test_memory_is_flat_over_ten_thousand(what):
    assert measure(REPEAT, what, 1_000, 9_000) < 3


@pytest.mark.slow
@pytest.mark.xfail(reason="TensorFlow's cache of eager kernels keeps the executor of a graph that is gone")
def test_a_model_is_freed_with_all_it_traced():
    # What is kept of this model is about a megabyte, each time.
    assert measure(REPEAT, "models", 20, 80) < 25


def slopes(activation):
    """Megabytes for one more sample: from 50 to 200, and from 200 to 400."""
    small, middle, large = (measure(BATCH, batch, activation) for batch in (50, 200, 400))
    return (middle - small) / 150, (large - middle) / 200


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_memory_grows_in_proportion_to_the_batch(activation):
    first, second = slopes(activation)
    # Which operations run at once, and so what lives at once, varies from run to run.
    assert first > 0.2
    assert 0.4 < second / first < 1.7
