import datetime
import hashlib
import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.runtime.channel.pairs import Seen, certify, dialed, listening

from shareflow.runtime.keys import describe, init_authority, sign
from shareflow_client.errors import ConfigError
from shareflow_client.tls import Identity, Trusted


@pytest.fixture
def authority(tmp_path):
    directory = tmp_path / "authority"
    init_authority(directory, "keys of the hospital")
    return directory


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def read(directory, name, role="party"):
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    return Identity(name, certificate.read_bytes(), key.read_bytes(), role)


def test_an_authority_signs_certificates_and_no_authorities(authority):
    certificate = load(authority / "authority.crt")
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert mode(authority / "authority.key") == 0o600


def test_a_party_gets_what_it_needs(authority):
    made = sign(authority, "server0", hosts=["mpc.example.org", "192.0.2.7", "2001:db8::1"])
    assert made == authority / "server0"
    assert sorted(os.listdir(made)) == ["authority.crt", "server0.crt", "server0.key", "storage.key"]
    assert [mode(made / name) for name in ("server0.key", "storage.key")] == [0o600, 0o600]
    assert mode(made) == 0o700
    assert len((made / "storage.key").read_bytes()) == 32
    assert (made / "authority.crt").read_bytes() == (authority / "authority.crt").read_bytes()
    certificate = load(made / "server0.crt")
    certificate.verify_directly_issued_by(load(authority / "authority.crt"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server0", "mpc.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "2001:db8::1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    read(made, "server0")  # key and certificate belong together


def test_a_client_has_no_storage_key(authority, tmp_path):
    made = sign(authority, "ann", "client", into=tmp_path / "elsewhere" / "ann")
    assert sorted(os.listdir(made)) == ["ann.crt", "ann.key", "authority.crt"]


def test_keys_differ(authority):
    made = [sign(authority, f"server{k}") for k in range(3)]
    assert len({(d / "storage.key").read_bytes() for d in made}) == 3
    assert len({load(d / f"server{k}.crt").serial_number for k, d in enumerate(made)}) == 3
    assert len({(d / f"server{k}.key").read_bytes() for k, d in enumerate(made)}) == 3


def test_nothing_is_replaced_unasked(authority):
    made = sign(authority, "server0")
    before = {path: path.read_bytes() for path in [*made.iterdir(), *authority.glob("*.*")]}
    with pytest.raises(ConfigError, match=r"not replaced unasked, .*server0\.key .* set overwrite"):
        sign(authority, "server0")
    with pytest.raises(ConfigError, match=r"not replaced unasked, .*authority\.crt and .*authority\.key exist"):
        init_authority(authority)
    (made / "server0.crt").unlink()
    with pytest.raises(ConfigError, match="not replaced unasked"):
        sign(authority, "server0")
    del before[made / "server0.crt"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_renewed_certificate_keeps_the_storage_key(authority):
    made = sign(authority, "server0")
    storage, key = (made / "storage.key").read_bytes(), (made / "server0.key").read_bytes()
    sign(authority, "server0", overwrite=True)
    assert (made / "storage.key").read_bytes() == storage
    assert (made / "server0.key").read_bytes() != key
    read(made, "server0")


def test_what_a_certificate_says_for_people(authority):
    party = describe(sign(authority, "model_owner", hosts=["a.example"]) / "model_owner.crt")
    assert (party.name, party.kind, party.hosts) == ("model_owner", "party", ("model_owner", "a.example"))
    der = ssl.PEM_cert_to_DER_cert((authority / "model_owner" / "model_owner.crt").read_text())
    assert party.fingerprint == hashlib.sha256(der).hexdigest()
    now = datetime.datetime.now(datetime.timezone.utc)
    assert party.begins < now
    assert (party.ends - now).days in (824, 825)
    assert describe(sign(authority, "ann", "client") / "ann.crt").kind == "client"
    assert describe(authority / "authority.crt").kind == "authority"
    assert describe(authority / "authority.crt").name == "keys of the hospital"


def test_a_certificate_from_elsewhere_is_described(tmp_path):
    certificate, _ = certify("someone")
    by = certify("ca")
    signed, _ = certify("else", by=by, dns="")
    for name, made in (("a", certificate), ("b", signed)):
        (tmp_path / name).write_bytes(made.public_bytes(Encoding.PEM))
    assert describe(tmp_path / "a").kind == "authority"
    assert (describe(tmp_path / "b").kind, describe(tmp_path / "b").name) == ("other", "else")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"name": "a/b"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"name": "-a"}, "letters, digits"),
        ({"name": ".."}, "letters, digits"),
        ({"name": "a" * 64}, "1 to 63"),
        ({"name": "a", "kind": "friend"}, "for a party or a client, not for 'friend'"),
        ({"name": "a", "hosts": ["https://a.example"]}, "without scheme and port; 'https://a.example'"),
        ({"name": "a", "hosts": ["a.example:50"]}, "without scheme and port"),
        ({"name": "a", "days": 0}, "at least a day"),
        ({"name": "a", "days": 5000}, "ends before that of its authority.*5000 days are too many"),
    ],
)
def test_what_cannot_be_signed(authority, settings, rule):
    with pytest.raises(ConfigError, match=rule):
        sign(authority, **settings)
    assert sorted(os.listdir(authority)) == ["authority.crt", "authority.key"]


def test_an_authority_is_needed(tmp_path, authority):
    with pytest.raises(ConfigError, match=r"authority\.crt cannot be read"):
        sign(tmp_path, "server0")
    key = (authority / "authority.key").read_bytes()
    init_authority(authority, overwrite=True)
    (authority / "authority.key").write_bytes(key)
    with pytest.raises(ConfigError, match="belong together"):
        sign(authority, "server0")
    (authority / "authority.key").write_bytes(b"x")
    with pytest.raises(ConfigError, match="private key in PEM form"):
        sign(authority, "server0")
    (authority / "authority.key").unlink()
    with pytest.raises(ConfigError, match=r"authority\.key cannot be read .*shareflow keys init"):
        sign(authority, "server0")
    (tmp_path / "text").write_text("x")
    with pytest.raises(ConfigError, match="certificate in PEM form"):
        describe(tmp_path / "text")


def test_signed_keys_make_links(authority, tmp_path):
    other = tmp_path / "other"
    init_authority(other)
    server, dealer, client = sign(authority, "server0"), sign(other, "server2"), sign(authority, "ann", "client")
    trusted = [
        Trusted("server2", certificate_pem=(dealer / "server2.crt").read_bytes()),
        Trusted("ann", authority_pem=(authority / "authority.crt").read_bytes(), role="client"),
    ]
    to = Trusted("server0", certificate_pem=(server / "server0.crt").read_bytes())
    seen = Seen()
    with listening(seen, trusted, read(server, "server0")) as listener:
        for me in (read(dealer, "server2"), read(client, "ann", "client")):
            link = dialed(listener.port, Seen(), me, to)
            assert seen.link().peer == me.name
            link.close()
