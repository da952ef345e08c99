"""A certificate authority of our own and a certificate for this machine, made at first start."""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datatunerx.server.files import write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_CA_DAYS, _LEAF_DAYS, _RENEW_DAYS = 3650, 365, 30


class TlsFiles(NamedTuple):
    """Where the parts lie."""

    ca: Path
    certificate: Path
    key: Path


def ensure(directory: Path, names: Iterable[str] = LOCAL_NAMES) -> TlsFiles:
    """The files of `directory`, made or renewed when they are missing, old, or lack a name."""
    files = TlsFiles(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    wanted = list(dict.fromkeys((*LOCAL_NAMES, *names)))
    if all(path.exists() for path in files) and _good(files.certificate, wanted):
        return files
    _make(directory, files, wanted)
    return files


def _good(certificate: Path, names: list[str]) -> bool:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    if found.not_valid_after_utc - datetime.now(UTC) < timedelta(days=_RENEW_DAYS):
        return False
    listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    have = {*listed.get_values_for_type(x509.DNSName), *map(str, listed.get_values_for_type(x509.IPAddress))}
    return have.issuperset(names)


def _make(directory: Path, files: TlsFiles, names: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    def private(key: ec.EllipticCurvePrivateKey) -> bytes:
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)

    ca_key_file = directory / "ca.key"
    if files.ca.exists() and ca_key_file.exists():
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        ca_key = loaded
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
        write_private(files.ca, ca.public_bytes(serialization.Encoding.PEM))
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


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


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
