"""The certificate: for the names the server is called by, renewed in time, or the user's own."""

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.server import listen, tls
from datatunerx.server.app import create_app
from datatunerx.server.tls import BadCertificate, alternative_names, ensure, given, names_for
from datatunerx.server.tokens import Tokens


@pytest.fixture
def made(tmp_path):
    """A self-signed certificate and its key, as a user might bring them."""

    def made(*names, days=30, name="own", password=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
        now = datetime.now(UTC)
        end = now + timedelta(days=days)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(min(now, end) - timedelta(days=1)).not_valid_after(end)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        seal = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        files = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        files[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
        files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, seal))
        return files

    return made


def expiring(monkeypatch, days):
    monkeypatch.setattr(tls, "_LEAF_DAYS", days)


def test_it_is_kept_while_it_is_good(tmp_path):
    first = ensure(tmp_path)
    before = [path.read_bytes() for path in first]

    assert [path.read_bytes() for path in ensure(tmp_path)] == before
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_its_names_follow_the_address_and_the_authority_stays(tmp_path):
    authority = ensure(tmp_path).ca.read_bytes()
    files = ensure(tmp_path, ["box.example", "192.0.2.7"])
    assert {"box.example", "192.0.2.7", "localhost"} <= set(alternative_names(files.certificate))
    files = ensure(tmp_path, ["other.example"])

    assert set(alternative_names(files.certificate)) == {*tls.LOCAL_NAMES, "other.example"}
    assert files.ca.read_bytes() == authority


def test_one_near_its_end_is_renewed_and_so_is_an_authority_that_would_end_before(tmp_path, monkeypatch):
    expiring(monkeypatch, 29)
    files = ensure(tmp_path)
    old, authority = files.certificate.read_bytes(), files.ca.read_bytes()
    expiring(monkeypatch, 365)
    files = ensure(tmp_path)
    assert files.certificate.read_bytes() != old and files.ca.read_bytes() == authority
    expiring(monkeypatch, 4000)
    files.certificate.unlink()
    assert ensure(tmp_path).ca.read_bytes() != authority


@pytest.mark.parametrize("file", ["server.crt", "ca.crt"])
def test_one_that_cannot_be_read_or_is_of_another_authority_is_made_anew(tmp_path, file):
    ensure(tmp_path / "a")
    ensure(tmp_path / "b")
    (tmp_path / "a" / file).write_bytes((tmp_path / "b" / file).read_bytes())
    files = ensure(tmp_path / "a")
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(files.ca.read_bytes()))
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(files.certificate, files.key)
    files.certificate.write_text("rubbish")
    assert "localhost" in alternative_names(ensure(tmp_path / "a").certificate)


def test_a_server_on_every_address_is_called_by_each_and_by_the_machines_name():
    found = names_for("0.0.0.0")

    assert socket.gethostname() in found and "127.0.0.1" in found
    assert names_for("192.0.2.7") == ["192.0.2.7"]


def test_a_given_pair_is_taken_and_says_what_to_trust(made):
    files = given(*made(x509.DNSName("box.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.7"))))

    assert alternative_names(files.certificate) == ["box.example", "192.0.2.7"]
    assert files.ca == files.certificate, "it is its own root"


def test_one_with_an_issuer_that_is_not_in_the_file_is_left_to_the_system_to_trust(tmp_path):
    own = ensure(tmp_path, ["box.example"])

    assert given(own.certificate, own.key).ca is None


def test_what_is_wrong_with_a_given_pair_is_said_with_the_file(made, tmp_path):
    name = x509.DNSName("box.example")
    certificate, key = made(name)
    other = made(name, name="other")[1]
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no PEM")
    sealed = made(name, name="sealed", password=b"x")
    cases = [
        (tmp_path / "none.crt", key, "none.crt: No such file"),
        (certificate, tmp_path / "none.key", "none.key: No such file"),
        (rubbish, key, "rubbish: is no certificate in PEM"),
        (certificate, rubbish, "rubbish: is no private key in PEM"),
        (certificate, other, "other.key: is not the key of .*own.crt"),
        (*sealed, "sealed.key: is encrypted"),
        (*made(name, days=-1, name="old"), "old.crt: ended on .*renew it"),
        (*made(name="nameless"), "nameless.crt: has no subjectAltName"),
    ]
    for first, second, told in cases:
        with pytest.raises(BadCertificate, match=told):
            given(first, second)


@pytest.mark.parametrize(
    ("host", "safe"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.3.2.1", True)]
    + [("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("no.such.name.invalid", False)],
)
async def test_off_loopback_a_server_without_a_token_refuses_to_start(state, host, safe):
    assert listen.is_loopback(host) == safe
    app = create_app(state.store, [], tokens=Tokens({}))
    if not safe:
        with pytest.raises(listen.NotSafe, match=f"{host} can be reached by others and there is no token"):
            await listen.serve(app, host, 0, state.tls())
    listen.check_exposure(host, state.tokens)


@pytest.fixture
async def serving(state, monkeypatch):
    """A listening server and what its port shows: the serial number of its certificate."""
    monkeypatch.setattr(listen, "RENEW_SECONDS", 0.05)
    stop = asyncio.Event()
    tasks = []

    async def serving(files, renew=None, hosts=()):
        ready = asyncio.get_running_loop().create_future()
        app = create_app(state.store, [], tokens=state.tokens, hosts=hosts)
        serve = listen.serve(
            app, "127.0.0.1", 0, files, renew=renew, ready=ready.set_result, stop=stop, signals=False
        )
        tasks.append(asyncio.create_task(serve))
        return await ready

    yield serving
    stop.set()
    await asyncio.gather(*tasks)
    await state.store.close()


def serial(port):
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_running_server_shows_the_renewed_certificate(state, serving, monkeypatch, eventually):
    expiring(monkeypatch, 29)
    files = state.tls()
    expiring(monkeypatch, 365)
    port = await serving(files, renew=lambda: state.tls())
    new = await eventually(lambda: asyncio.to_thread(_not_near_its_end, port))

    assert new


def _not_near_its_end(port):
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    left = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc - datetime.now(UTC)
    return left > timedelta(days=300)


async def test_files_that_were_replaced_are_shown_and_broken_ones_are_not(serving, made, caplog, eventually):
    name = x509.DNSName("box.example")
    files = given(*made(name))
    port = await serving(files)
    first = await asyncio.to_thread(serial, port)
    files.certificate.write_text("half a fi")

    async def complained():
        return "certificate not renewed" in caplog.text

    assert await eventually(complained)
    assert await asyncio.to_thread(serial, port) == first
    made(name)

    async def renewed():
        return await asyncio.to_thread(serial, port) != first

    assert await eventually(renewed)


async def test_the_kubeconfig_works_with_a_certificate_for_another_name_than_the_address(
    state, serving, made
):
    files = given(*made(x509.DNSName("box.example")))
    port = await serving(files, hosts=alternative_names(files.certificate))
    path = state.write_kubeconfig(port, "127.0.0.1", files)
    access = load(path)

    assert access.tls_name == "box.example"
    async with Https(access) as transport:
        assert (await transport.request("GET", "/version")).status == 200
