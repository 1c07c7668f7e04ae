"""Makes self-signed certificates for the other side to pin."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zkchannels.service.secretfile import read_secret, write_secret

_LIFETIME = datetime.timedelta(days=3650)
# It is its own authority, and strict verifiers (RFC 5280) want that said in full.
_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_SKEW = datetime.timedelta(days=1)
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def ensure_certificate(certificate: Path, private_key: Path, names: Sequence[str]) -> None:
    """Make a server's key and self-signed certificate unless there are some.

    The key is written first, so that an interrupted call is completed by the next one.
    """
    if certificate.exists():
        return
    built = _self_signed(_ensure_private_key(private_key), names, "server")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    temporary = certificate.with_name(certificate.name + ".new")
    temporary.write_bytes(built)
    temporary.replace(certificate)


def ensure_pair(path: Path, name: str, usage: Literal["server", "client"]) -> None:
    """Make a self-signed certificate and its key in one file, mode 0600, unless there is one.

    Raises SecretFileError.
    """
    if path.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    write_secret(path, _self_signed(key, [name], usage) + _pem(key))


def _self_signed(
    key: ec.EllipticCurvePrivateKey, names: Sequence[str], usage: Literal["server", "client"]
) -> bytes:
    """Return a certificate in PEM."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    # Names the key, so that a customer may trust several certificates of one host name.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[usage]]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def _ensure_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        write_secret(path, _pem(ec.generate_private_key(ec.SECP256R1())))
    key = serialization.load_pem_private_key(read_secret(path), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic curve key; give its certificate, too")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
