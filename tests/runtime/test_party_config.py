"""A party's configuration: what is right is read, and each mistake is an error that names file and key."""

import re
import shutil

import pytest
from tests.runtime.party_files import CLIENT, PARTIES, configuration, make_files

from shareflow.errors import ConfigError
from shareflow.runtime.party_config import DealingSettings, ServingSettings, read_party_config
from shareflow.runtime.plan import Plan


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("organisations"))


@pytest.fixture(scope="module")
def plan(files):
    return Plan.read(files / "model.plan")


def read(files, plan, name, text=None):
    path = files / f"{name}.toml"
    path.write_text(configuration(name) if text is None else text)
    config = read_party_config(path)
    config.check(plan.manifest, plan.fingerprint, path)
    return config


@pytest.mark.parametrize("name", PARTIES)
def test_what_is_right_is_read(files, plan, name):
    config = read(files, plan, name)
    assert config.name == name
    assert config.identity().name == name
    assert len(config.storage_secret()) == 32
    assert (config.serving_settings, config.dealing) == (ServingSettings(), DealingSettings())
    assert config.health is None


def test_the_follower_dials_the_leader_and_the_dealer_both(files, plan):
    dialed = {n: [peer.name for peer in read(files, plan, n).dials(plan.manifest)] for n in PARTIES}
    assert dialed == {"server0": [], "server1": ["server0"], "dealer": ["server0", "server1"]}


def test_who_dials_is_accepted_and_clients_are(files, plan):
    def accepted(name):
        return {(peer.role, peer.name) for peer in read(files, plan, name).accepts(plan.manifest)}

    client = ("client", CLIENT)
    assert accepted("server0") == {("party", "server1"), ("party", "dealer"), client}
    assert accepted("server1") == {("party", "dealer"), client}
    assert accepted("dealer") == set()


def test_tables_are_read(files, plan):
    text = configuration("server0") + (
        'most_rows = 7\n[serving]\nparallel = 2\nprefetch_bytes = "1 MiB"\n[stock]\n"predict@1" = 20\nload = 0\n'
        '[log]\nformat = "text"\n[links]\ndead_after = 3\n'
    )
    config = read(files, plan, "server0", text)
    settings = config.serving_settings
    assert (settings.parallel, settings.prefetch_bytes) == (2, 1 << 20)
    targets = {graph: settings.target(plan.manifest, graph, 100) for graph in plan.manifest.graphs}
    assert targets == {"load": 0, "predict@1": 20, "predict@2": 8}
    assert ServingSettings().target(plan.manifest, "load", 100) == 1
    assert config.clients[0].most_rows == 7
    assert config.links.settings().dead_after == 3
    assert config.log.format == "text"


def test_a_stock_that_nobody_asked_for_is_bounded_by_its_bytes(plan):
    settings = ServingSettings(stock_bytes=1000, stock={"predict@2": 5})
    targets = [settings.target(plan.manifest, "predict@1", size) for size in (0, 100, 125, 126, 400, 1001)]
    # Of the smallest graph there is one, or the entry could not be asked.
    assert targets == [8, 8, 8, 7, 2, 1]
    assert settings.target(plan.manifest, "predict@2", 1001) == 5
    assert ServingSettings(stock_bytes=1000).target(plan.manifest, "predict@2", 1001) == 0


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("server0", lambda t: t.replace('name = "server0"', 'name = "server7"', 1), "name: must be a computing party"),
        ("server0", lambda t: t.replace('listen = "127.0.0.1:0"\n', ""), "listen: a server must listen"),
        ("dealer", lambda t: 'listen = "127.0.0.1:0"\n' + t, "listen: a dealer connects"),
        ("server0", lambda t: t.replace("listen =", "lisen ="), "lisen: is no key that is known here. Did you mean"),
        ("server0", lambda t: t.replace("model.plan", "other.plan"), "plan: must be a file that can be read"),
        ("server0", lambda t: f'fingerprint = "{"0" * 64}"\n' + t, "fingerprint: must be that of the plan"),
        ("server0", lambda t: t.replace("storage.key", "server0.crt", 1), "storage_key: is a secret"),
        ("server0", lambda t: t.replace('data = "data-server0"\n', ""), "data: is missing"),
        ("server1", lambda t: re.sub('address = .*\n', "", t), "[[parties]] server0 address: server1 connects"),
        ("dealer", lambda t: re.sub('address = .*\n', "", t, count=1), "[[parties]] server0 address: dealer connects"),
        ("dealer", lambda t: t.replace('name = "server1"', 'name = "client"'), "[[parties]] #2 name: must be a comp"),
        ("dealer", lambda t: t.replace('name = "server1"', 'name = "server0"'), "[[parties]] #2 name: must be another"),
        ("dealer", lambda t: t.replace('name = "server1"', 'name = "dealer"'), "parties: lists the other parties"),
        ("dealer", lambda t: t[: t.rindex("[[parties]]")], "parties: must be 2 tables or more"),
        ("dealer", lambda t: t.replace("server1/server1.crt", "server0/server0.crt"), "is that of server0 too"),
        ("server0", lambda t: t.replace('"client"]', '"server1"]'), "[[clients]] #1 acts_as: names parties"),
        ("server0", lambda t: t.replace('["client"]', '"client"'), "[[clients]] #1 acts_as: must be a list"),
        ("server0", lambda t: t.replace('acts_as = ["client"]', "acts_as = []"), "acts_as: must have 1 items"),
        ("server0", lambda t: re.sub('certificate = "hosp.*\n', "", t), "clients[1]: hospital-7 has neither"),
        ("server0", lambda t: t + 'authority = "authority.crt"\n', "authority: a client is known by"),
        ("server0", lambda t: t.replace(f'name = "{CLIENT}"', 'name = "dealer"'), "[[clients]] #1 name: must not be"),
        ("server0", lambda t: t + '[stock]\n"predict@3" = 1\n', "[stock] predict@3: must be a graph of the plan"),
        ("server0", lambda t: t + '[stock]\n"predict@1" = -1\n', "[stock] predict@1: must be a whole number"),
        ("server0", lambda t: t + "[serving]\nstock = 1\n", "[serving] stock: is no key"),
        ("server0", lambda t: t + "[serving]\nparallel = 0\n", "[serving] parallel: must be a whole number from 1"),
        ("server0", lambda t: t + '[log]\nlevel = "loud"\n', "[log] level: must be one of"),
        ("server0", lambda t: t + "[links]\ndead_after = 0\n", "[links] dead_after: must be a number of seconds"),
        ("dealer", lambda t: t + "[dealing]\nwindow = 0\n", "[dealing] window: must be"),
        (
            "dealer",
            lambda t: t + '[[clients]]\nname = "x"\nauthority = "authority.crt"\nacts_as = ["client"]\n',
            "clients: stand at the servers",
        ),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(files, plan, name, change, wanted):
    text = change(configuration(name))
    with pytest.raises(ConfigError) as caught:
        read(files, plan, name, text)
    assert f"{name}.toml" in str(caught.value)
    assert wanted in str(caught.value)


def test_a_storage_key_of_another_size(files, plan, tmp_path):
    shutil.copytree(files, tmp_path / "copy")
    key = tmp_path / "copy" / "server0" / "storage.key"
    key.write_bytes(b"short")
    config = read(tmp_path / "copy", plan, "server0")
    with pytest.raises(ConfigError, match=r"storage_key: the file has 32 random bytes; .* has 5") as caught:
        config.storage_secret()
    assert "short" not in str(caught.value)


def test_a_key_of_another_certificate(files, plan):
    text = configuration("server0").replace("server0/server0.key", "server1/server1.key")
    config = read(files, plan, "server0", text)
    with pytest.raises(ConfigError, match="private key of server0 belongs to its certificate"):
        config.identity()


def test_nothing_secret_is_shown_by_a_configuration(files, plan):
    config = read(files, plan, "server0")
    shown = repr(config) + repr(config.identity())
    assert "PRIVATE KEY" not in shown
    assert repr(config.storage_secret()) not in shown
