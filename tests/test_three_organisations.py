"""The deployment example: its script runs as a user runs it, and its files go together with each other and the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shareflow.parties import read_party
from shareflow.runtime.party_config import read_party_config
from shareflow.runtime.plan import Plan
from shareflow_client.client_config import load_config
from shareflow_client.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "three-organisations"
PARTIES = {"server0": "institute", "server1": "hospital", "dealer": "foundation"}
CLIENTS = {"owner": "institute", "client": "hospital"}
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
DOCKERFILE = (EXAMPLE / "Dockerfile").read_text()
HOME = "/shareflow"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the script ran, and what it printed."""
    folder = tmp_path_factory.mktemp("three") / "organisations"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "run_locally.py"), "--keep", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder, done.stdout


def test_the_script_predicts_privately_what_the_model_predicts(ran):
    _, printed = ran
    rows = re.findall(r"^│ (\d+) +│ (\d+) +│ (\d+) +│ ([\d.e+-]+) +│$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert all(private == plain and 0 < float(difference) < 1e-3 for _, private, plain, difference in rows)
    assert len({row[1] for row in rows}) > 1, "a model that always says the same would agree with anything"
    assert "private and plaintext predictions agree" in printed
    assert "all parties stopped in good order" in printed


def test_the_script_deals_ahead_and_shows_each_command(ran):
    _, printed = ran
    assert "Dealt 41 executions" in printed
    for command in ("keys init", "keys sign", "compile", "audit", "party", "deal", "load"):
        assert f"$ shareflow {command} " in printed
    assert "$ shareflow-client predict " in printed


def test_no_organisation_has_a_key_of_another_and_no_log_has_any(ran):
    folder, printed = ran
    keys = sorted(folder.rglob("*.key"))
    made = {key.parent.name: key.relative_to(folder).parts[0] for key in keys if key.name != "storage.key"}
    assert made.pop("authority") in PARTIES.values()
    assert made == {**PARTIES, "institute": "institute", "hospital": "hospital"}
    logs = [path.read_text() for path in folder.glob("*.log")]
    assert len(logs) == 3
    for key in keys:
        assert key.stat().st_mode & 0o177 == 0
        secret = key.read_bytes()
        text = secret.hex() if key.name == "storage.key" else secret.decode().splitlines()[1]
        assert all(text not in said for said in (*logs, printed))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "run_locally.py"), "--keep", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.fixture
def placed(ran, tmp_path):
    """The organisations' folders with the example's own TOML files, but for the fingerprint."""
    folder, _ = ran
    for organisation in set(PARTIES.values()):
        shutil.copytree(folder / organisation, tmp_path / organisation, ignore=shutil.ignore_patterns("data"))
    fingerprint = Plan.read(folder / "institute" / "model.plan").fingerprint
    for source in EXAMPLE.glob("*/*.toml"):
        place = tmp_path / source.parent.name / source.name
        place.write_text(source.read_text().replace("0" * 64, fingerprint))
    return tmp_path


def config_of(folder, party):
    return read_party_config(folder / PARTIES[party] / f"{party}.toml")


def test_there_is_no_toml_file_that_is_not_tested():
    found = {(path.parent.name, path.stem) for path in EXAMPLE.rglob("*.toml")}
    assert found == {(organisation, name) for name, organisation in {**PARTIES, **CLIENTS}.items()}


@pytest.mark.parametrize("party", PARTIES)
def test_a_party_can_run_with_its_file(placed, party):
    config = config_of(placed, party)
    plan = Plan.read(config.plan)
    config.check(plan.manifest, plan.fingerprint, f"{party}.toml")
    assert config.identity().name == party and len(config.storage_secret()) == 32
    assert {str(peer.address) for peer in config.dials(plan.manifest)} <= set(addresses())


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_can_run_with_its_file(placed, name):
    config = load_config(placed / CLIENTS[name] / f"{name}.toml")
    config.read_plan()
    assert config.identity().name == config.name == CLIENTS[name]
    assert {str(server.address) for server in config.servers} == set(addresses())
    for server in ("server0", "server1"):
        (rights,) = [r for r in config_of(placed, server).clients if r.name == config.name]
        assert rights.acts_as == (config.acts_as,)
        assert rights.most_rows >= (config.rows if config.acts_as == "client" else 1)


def test_both_servers_allow_the_same(placed):
    def rights(party):
        clients = config_of(placed, party).clients
        return [(c.name, c.acts_as, c.most_rows, c.rows_per_minute, c.most_waiting) for c in clients]

    assert rights("server0") == rights("server1")


@pytest.mark.parametrize("name", PARTIES)
def test_the_placeholder_of_the_fingerprint_lets_nothing_start(placed, name):
    path = placed / PARTIES[name] / f"{name}.toml"
    path.write_text((EXAMPLE / PARTIES[name] / f"{name}.toml").read_text())
    config = read_party_config(path)
    plan = Plan.read(config.plan)
    with pytest.raises(ConfigError, match="fingerprint: must be that of the plan"):
        config.check(plan.manifest, plan.fingerprint, path)


def test_the_witness_that_the_files_propose_is_kept(placed):
    path = placed / "foundation" / "dealer.toml"
    text, proposed = path.read_text(), '# witness = "/other-disk/dealer.witness"'
    assert proposed in text
    assert all('# witness = "/other-disk/' in (EXAMPLE / o / f"{p}.toml").read_text() for p, o in PARTIES.items())
    text = re.sub(r"^health = .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r'^address = "[^"]*"', 'address = "127.0.0.1:1"', text, flags=re.MULTILINE)
    path.write_text(text.replace(proposed, 'witness = "dealer.witness"'))
    with read_party(path).start():
        assert (path.parent / "dealer.witness").stat().st_size > 0


# --- containers


def addresses():
    """Where servers are reached, by what the configurations of all others say."""
    texts = "".join(path.read_text() for path in EXAMPLE.glob("*/*.toml"))
    return sorted(set(re.findall(r'address = "([^"]+)"', texts)))


def documents(organisation):
    return {d["kind"]: d for d in yaml.safe_load_all((EXAMPLE / "kubernetes" / f"{organisation}.yaml").read_text())}


def used_files(config, base):
    """Files that a configuration names, relative to it."""
    paths = [config.plan, config.certificate, config.private_key, config.storage_key]
    paths += [peer.certificate for peer in config.parties] + [client.certificate for client in config.clients]
    return {path.relative_to(base).as_posix() for path in paths}


def test_addresses_are_the_ports_and_names_of_the_containers(placed):
    assert len(addresses()) == 2
    for address in addresses():
        host, _, port = address.partition(":")
        party = host.partition(".")[0]
        config = config_of(placed, party)
        assert config.listen.port == int(port)
        service = COMPOSE["services"][party]
        assert host in service["networks"]["between"]["aliases"]
        assert any(mapping.endswith(f":{port}") for mapping in service["ports"])
        load_balancer = documents(PARTIES[party])["Service"]["spec"]
        assert [entry["port"] for entry in load_balancer["ports"]] == [int(port)]
        assert load_balancer["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("party", PARTIES)
def test_compose_gives_a_party_what_its_file_names(placed, party):
    config, service = config_of(placed, party), COMPOSE["services"][party]
    base = placed / PARTIES[party]
    assert service["command"] == ["party", "--config", f"{party}.toml"]
    mounts = [volume.split(":") for volume in service["volumes"]]
    bound = {inside.removeprefix(f"{HOME}/"): source for source, inside, *_ in mounts if source.startswith("./")}
    assert all(mode == ["ro"] for source, _, *mode in mounts if source.startswith("./"))
    assert all(source.removeprefix("./") == f"{PARTIES[party]}/{inside}" for inside, source in bound.items())
    for file in (*used_files(config, base), f"{party}.toml"):
        assert any(file == inside or file.startswith(f"{inside}/") for inside in bound), file
    (store,) = [inside for source, inside, *_ in mounts if not source.startswith("./")]
    assert config.data.relative_to(base) == Path(store).relative_to(HOME) / "store"
    assert f"127.0.0.1:{config.health.port}" in service["healthcheck"]["test"][-1]
    assert all(m.startswith("127.0.0.1:") for m in service["ports"] if m.endswith(f":{config.health.port}"))
    assert float(service["stop_grace_period"].removesuffix("s")) > config.grace
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert "healthcheck" in service and service["deploy"]["resources"]["limits"]["memory"]
    assert not any("environment" in key for key in service)


@pytest.mark.parametrize("party", PARTIES)
def test_kubernetes_gives_a_party_what_its_file_names(placed, party):
    config, found = config_of(placed, party), documents(PARTIES[party])
    base = placed / PARTIES[party]
    assert all(d["metadata"].get("namespace", PARTIES[party]) == PARTIES[party] for d in found.values())
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    (container,), (copying,) = pod["containers"], pod["initContainers"]
    assert container["args"] == ["party", "--config", f"{party}.toml"]
    mounts = {mount["mountPath"].removeprefix(f"{HOME}/"): mount for mount in container["volumeMounts"]}
    for file in (*used_files(config, base), f"{party}.toml"):
        assert any(file == inside or file.startswith(f"{inside}/") for inside in mounts), file
    assert config.data.relative_to(base) == Path("data/store") and "data" in mounts
    # The Secret's files are group-readable with fsGroup, and a party refuses such keys: a copy is what it reads.
    assert pod["securityContext"]["fsGroup"] and mounts[party]["name"] == "keys"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["keys"]["emptyDir"]["medium"] == "Memory" and volumes["secret"]["secret"]["defaultMode"] == 0o400
    assert copying["command"][-1] == f"install -m 0400 /keys/* {HOME}/{party}/"
    created = (EXAMPLE / "kubernetes" / f"{PARTIES[party]}.yaml").read_text()
    for file in {config.certificate, config.private_key, config.storage_key}:
        assert f"--from-file={file.relative_to(base)}" in created
    assert {p["name"]: p["containerPort"] for p in container["ports"]}["health"] == config.health.port
    assert found["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9000"
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert pod["terminationGracePeriodSeconds"] > config.grace
    assert found["StatefulSet"]["spec"]["replicas"] == 1
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("party", PARTIES)
def test_network_policies_allow_the_links_of_a_party_and_no_more(placed, party):
    config, policy = config_of(placed, party), documents(PARTIES[party])["NetworkPolicy"]["spec"]
    manifest = Plan.read(config.plan).manifest

    def ports(rules):
        return {entry["port"] for rule in rules for entry in rule["ports"]}

    listens = {config.listen.port} if config.listen else set()
    assert ports(policy["ingress"]) == listens | {config.health.port}
    dialed = {peer.address.port for peer in config.dials(manifest)}
    assert ports(policy["egress"]) == dialed | {53}
    service = documents(PARTIES[party])["Service"]["spec"]
    assert (service.get("type") == "LoadBalancer") is bool(config.listen)


def test_all_run_one_image_as_one_user_that_is_not_root():
    (tag,) = {service["image"] for service in COMPOSE["services"].values()}
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user and int(user[1]) > 0
    assert f"-t {tag} " in DOCKERFILE
    assert {service["user"] for service in COMPOSE["services"].values()} == {f"{user[1]}:{user[2]}"}
    for organisation in PARTIES.values():
        pod = documents(organisation)["StatefulSet"]["spec"]["template"]["spec"]
        images = {c["image"] for c in (*pod["containers"], *pod["initContainers"])}
        assert {image.rpartition("/")[2] for image in images} == {tag}
        security = pod["securityContext"]
        assert (security["runAsUser"], security["fsGroup"]) == (int(user[1]), int(user[2]))
    assert f"WORKDIR {HOME}\n" in DOCKERFILE and "EXPOSE 7000 9000\n" in DOCKERFILE


def test_the_image_holds_programs_alone():
    build = COMPOSE["services"]["server0"]["build"]
    context = (EXAMPLE / build["context"]).resolve()
    assert context == ROOT and (context / build["dockerfile"]).resolve() == EXAMPLE / "Dockerfile"
    names = {
        name
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert names == {"pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "client", "kernels", "src"}
    assert all((ROOT / name).exists() for name in names)
    ignored = (EXAMPLE / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in ignored and {line[1:] for line in ignored if line.startswith("!")} == names


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (EXAMPLE / "README.md").read_text()):
        assert target.startswith("http") or (EXAMPLE / target).exists(), target
