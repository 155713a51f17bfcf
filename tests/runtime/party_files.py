"""The files of three organisations in a folder: authority, certificates, a plan and configurations."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.fake_servers import small_plan

from shareflow.runtime.keys import init_authority, sign

PARTIES, CLIENT = ("server0", "server1", "dealer"), "hospital-7"


def make_files(directory: Path) -> Path:
    """Keys and a plan; gives the folder."""
    init_authority(directory)
    for name in PARTIES:
        sign(directory, name, "party", ["127.0.0.1"])
    sign(directory, CLIENT, "client")
    small_plan().write(directory / "model.plan")
    return directory


def configuration(name: str, *, listen: str = "127.0.0.1:0", ports: dict[str, int] | None = None) -> str:
    """A party's TOML text, right as it is."""
    lines = [f'name = "{name}"', 'plan = "model.plan"', f'data = "data-{name}"']
    lines += [f'storage_key = "{name}/storage.key"', f'certificate = "{name}/{name}.crt"']
    lines += [f'private_key = "{name}/{name}.key"']
    if name != "dealer":
        lines.append(f'listen = "{listen}"')
    for other in PARTIES:
        if other == name:
            continue
        lines += ["[[parties]]", f'name = "{other}"', f'certificate = "{other}/{other}.crt"']
        if other == "server0" or (other == "server1" and name == "dealer"):
            lines.append(f'address = "127.0.0.1:{(ports or {}).get(other, 7000)}"')
    if name != "dealer":
        lines += ["[[clients]]", f'name = "{CLIENT}"', f'certificate = "{CLIENT}/{CLIENT}.crt"', 'acts_as = ["client"]']
    return "\n".join(lines) + "\n"
