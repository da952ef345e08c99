"""The certificate: made for this machine by an authority of our own, or given by the user."""

import ipaddress
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datatunerx.server.files import write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_CA_DAYS, _LEAF_DAYS, _RENEW_DAYS = 3650, 365, 30


class BadCertificate(Exception):
    """The files given cannot be served with; the message names the file and what is wrong."""


class TlsFiles(NamedTuple):
    """Where the parts lie."""

    certificate: Path
    key: Path
    ca: Path | None = None
    """What clients must trust; None when they know the issuer already."""


def names_for(host: str) -> list[str]:
    """What a server bound to `host` may be called; bound to every address, by each, and by its own name."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    import psutil

    found = [socket.gethostname()]
    for addresses in psutil.net_if_addrs().values():
        found += [a.address for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)]
    return [name for name in found if "%" not in name]  # a link-local address counts on its own link only


def ensure(directory: Path, names: Iterable[str] = LOCAL_NAMES) -> TlsFiles:
    """The files of `directory`, made anew when they are missing, near their end, or for other names."""
    files = TlsFiles(directory / "server.crt", directory / "server.key", directory / "ca.crt")
    wanted = list(dict.fromkeys(_plain(name) for name in (*LOCAL_NAMES, *names)))
    if not _good(files, wanted):
        _make(directory, files, wanted)
    return files


def given(certificate: Path, key: Path) -> TlsFiles:
    """Files of the user's own. Raises BadCertificate.

    The certificate file holds the chain. When it ends with a root, that is what our kubeconfig trusts; else
    the issuer must be one that clients know.
    """
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadCertificate(f"{path}: {error.strerror}") from None
    chain = _chain(certificate)
    if not alternative_names(certificate):
        raise BadCertificate(f"{certificate}: has no subjectAltName, so no client will accept it")
    if chain[0].not_valid_after_utc < datetime.now(UTC):
        raise BadCertificate(f"{certificate}: ended on {chain[0].not_valid_after_utc:%Y-%m-%d}; renew it")

    def no_password() -> str:
        raise BadCertificate(f"{key}: is encrypted; give a key without a passphrase, mode 0600")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        why = "is not the key of" if "MISMATCH" in str(error.reason) else "is no private key in PEM for"
        raise BadCertificate(f"{key}: {why} {certificate}") from None
    return TlsFiles(certificate, key, certificate if chain[-1].issuer == chain[-1].subject else None)


def alternative_names(certificate: Path) -> list[str]:
    """The names and addresses that a certificate is for."""
    from cryptography import x509

    try:
        extension = _chain(certificate)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    value = extension.value
    return [*value.get_values_for_type(x509.DNSName), *map(str, value.get_values_for_type(x509.IPAddress))]


def _chain(certificate: Path) -> "list[x509.Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError:
        raise BadCertificate(f"{certificate}: is no certificate in PEM") from None


def _good(files: TlsFiles, names: list[str]) -> bool:
    """Whether there is a certificate for exactly these names, of our authority, with time left."""
    if files.ca is None or not all(path.exists() for path in files if path):
        return False
    from cryptography.exceptions import InvalidSignature

    try:
        leaf, ca = _chain(files.certificate)[0], _chain(files.ca)[0]
        leaf.verify_directly_issued_by(ca)
    except (BadCertificate, ValueError, TypeError, InvalidSignature):
        return False
    if leaf.not_valid_after_utc - datetime.now(UTC) < timedelta(days=_RENEW_DAYS):
        return False
    return set(alternative_names(files.certificate)) == set(names)


def _make(directory: Path, files: TlsFiles, names: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    def private(key: ec.EllipticCurvePrivateKey) -> bytes:
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)

    ca_key_file, ca_file = directory / "ca.key", directory / "ca.crt"
    if known := _authority(ca_file, ca_key_file):
        ca, ca_key = known
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("datatunerx local CA")
        uses = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        ca = (
            _builder(subject, subject, ca_key.public_key(), _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(uses, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write_private(ca_key_file, private(ca_key))
        write_private(ca_file, ca.public_bytes(serialization.Encoding.PEM))
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _builder(_name("datatunerx"), ca.subject, key.public_key(), _LEAF_DAYS)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    write_private(files.key, private(key))
    write_private(files.certificate, leaf.public_bytes(serialization.Encoding.PEM))


def _authority(ca: Path, key: Path) -> "tuple[x509.Certificate, EllipticCurvePrivateKey] | None":
    """The one there is, if it is whole and outlives a certificate made now."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    try:
        found = _chain(ca)[0]
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    except (FileNotFoundError, BadCertificate, ValueError):
        return None
    if not isinstance(loaded, EllipticCurvePrivateKey) or loaded.public_key() != found.public_key():
        return None
    left = found.not_valid_after_utc - datetime.now(UTC)
    return (found, loaded) if left > timedelta(days=_LEAF_DAYS) else None


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _plain(name: str) -> str:
    """A name or address as certificates spell it."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _alternative(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: "x509.Name", issuer: "x509.Name", public_key: "CertificatePublicKeyTypes", days: int
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # An hour back: clocks differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )
