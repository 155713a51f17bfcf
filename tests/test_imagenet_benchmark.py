"""The networks of benchmarks.imagenet: those with real weights are right; a row says what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import imagenet, imagenet_models

import shareflow as sf

ROOT = Path(__file__).resolve().parents[1]
needs_data = pytest.mark.skipif(
    not (imagenet.SHARED / "squeezenet_v1.0_imagenet_deepcompressed_hwio.npz").exists(),
    reason=f"the weights of SqueezeNet and ResNet-20 are not there: {imagenet.SHARED.name}/ beside the repository",
)
needs_photographs = pytest.mark.skipif(
    not (imagenet.SHARED / "n02109961_36.JPEG").exists(), reason="the sample photograph is not there"
)


@needs_data
def test_squeezenet_knows_its_sample_as_it_does_in_plaintext():
    network = imagenet_models.squeezenet(imagenet.SHARED)
    plain = np.asarray(network.model(network.samples))
    scores = sf.private_model(network.model, owner="model-owner").predict(network.samples, receiver="client")
    assert plain.argmax() == scores.argmax() == 248
    np.testing.assert_allclose(scores, plain, atol=1e-2)


@needs_data
@needs_photographs
def test_resnet20_on_pieces_of_photographs():
    network = imagenet_models.resnet20(imagenet.SHARED)
    samples = network.samples[:48]
    plain = np.asarray(network.model(samples))
    scores = sf.private_model(network.model, owner="model-owner").predict(samples, receiver="client", batch_size=16)
    np.testing.assert_allclose(scores, plain, atol=1e-2)
    sure = np.diff(np.sort(plain, -1)[:, -2:], axis=-1)[:, 0] > 2e-2
    assert sure.mean() > 0.9
    assert np.array_equal(scores.argmax(-1)[sure], plain.argmax(-1)[sure])


def test_resnet20_takes_images_as_cifar_gives_them():
    images = np.zeros((3, 32, 32, 3), np.uint8)
    if not (imagenet.SHARED / "cifar10_resnet20_hwio.npz").exists():
        pytest.skip("the weights of ResNet-20 are not there")
    network = imagenet_models.resnet20(imagenet.SHARED, images)
    assert network.samples.shape == images.shape
    np.testing.assert_allclose(network.samples[0, 0, 0], [-2.1179, -2.0357, -1.8044], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "lstm", "encoder", "mobilenet_v2", "densenet121"])
def test_networks_with_random_weights_agree_with_plaintext(name):
    network = imagenet_models.NETWORKS[name](imagenet.SHARED)
    plain = np.asarray(network.model(network.samples[:1], training=False))
    private = sf.private_model(network.model, owner="model-owner")
    scores = private.predict(network.samples[:1], receiver="client")
    np.testing.assert_allclose(scores, plain, atol=2e-2 * max(1.0, np.abs(plain).max()))
    assert private.audit(1).passed


@pytest.mark.slow
def test_a_row_of_the_benchmark(tmp_path):
    file = tmp_path / "row.json"
    command = [sys.executable, "-m", "benchmarks.imagenet", "--networks", "unet", "--runs", "2", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(file.read_text())["results"]
    assert row["agreement"] == 1.0
    assert row["products"] > 1e8
    assert row["memory"] > 1e8
    assert row["offline"] > 0 and row["online"] > 0 and row["together"] > 0


def test_a_network_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        imagenet.main(["--networks", "alexnet"])
    assert "alexnet" in capsys.readouterr().err


def test_targets_are_coloured():
    assert imagenet._judged(3.0, 4.0, ".1f") == "[green]3.0[/]"
    assert imagenet._judged(5.0, 4.0, ".1f") == "[red]5.0[/]"
    assert imagenet._judged(5.0, None, ".1f") == "5.0"
