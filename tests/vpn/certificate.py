"""TLS certificates and a certificate authority, made where neither OpenSSL's program nor a cryptography library is installed."""

from __future__ import annotations

import base64
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

# NIST P-256
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
A = P - 3
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 + A) * pow(2 * one[1], -1, P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope**2 - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def _multiply(k: int, point: Point) -> tuple[int, int]:
    found: Point = None
    while k:
        if k & 1:
            found = _add(found, point)
        point, k = _add(point, point), k >> 1
    assert found is not None
    return found


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes(2, "big").lstrip(b"\0") if len(body) > 127 else b""
    return bytes([tag, 0x80 | len(size)]) + size + body if size else bytes([tag, len(body)]) + body


def _integer(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _time(value: datetime) -> bytes:
    return _der(0x17, value.strftime("%y%m%d%H%M%SZ").encode())


EC_KEY = bytes.fromhex("06072a8648ce3d0201")
P256 = bytes.fromhex("06082a8648ce3d030107")
ECDSA_SHA256 = _der(0x30, bytes.fromhex("06082a8648ce3d040302"))


def _pem(kind: str, data: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(data).decode()}-----END {kind}-----\n"


def _name(text: str) -> bytes:
    return _der(0x30, _der(0x31, _der(0x30, bytes.fromhex("0603550403"), _der(0x0C, text.encode()))))


@attrs.frozen
class KeyPair:
    """A private key on P-256, and its public point."""

    private: int = attrs.field(factory=lambda: secrets.randbelow(N - 1) + 1, repr=False)
    point: bytes = attrs.field(init=False)

    @point.default
    def _public(self) -> bytes:
        x, y = _multiply(self.private, G)
        return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")

    def sign(self, body: bytes) -> bytes:
        """An ECDSA signature of these bytes."""
        k = secrets.randbelow(N - 1) + 1
        r = _multiply(k, G)[0] % N
        s = pow(k, -1, N) * (int.from_bytes(hashlib.sha256(body).digest(), "big") + r * self.private) % N
        return _der(0x30, _integer(r), _integer(s))

    def pem(self) -> str:
        """The private key as a file has it."""
        secret = _der(4, self.private.to_bytes(32, "big"))
        return _pem(
            "EC PRIVATE KEY",
            _der(0x30, _integer(1), secret, _der(0xA0, P256), _der(0xA1, _der(3, b"\0", self.point))),
        )


def _certificate(
    subject: str, key: KeyPair, issuer: str, issuer_key: KeyPair, *, is_authority: bool, until: datetime
) -> str:
    names = _der(0x30, _der(0x82, subject.encode()), _der(0x87, bytes([127, 0, 0, 1])))
    basic = _der(0x30, _der(1, b"\xff")) if is_authority else _der(0x30)
    extensions = _der(
        0xA3,
        _der(
            0x30,
            _der(0x30, bytes.fromhex("0603551d11"), _der(4, names)),
            _der(0x30, bytes.fromhex("0603551d13"), b"\x01\x01\xff", _der(4, basic)),
        ),
    )
    body = _der(
        0x30,
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(64)),
        ECDSA_SHA256,
        _name(issuer),
        _der(0x30, _time(until - timedelta(days=2)), _time(until)),
        _name(subject),
        _der(0x30, _der(0x30, EC_KEY, P256), _der(3, b"\0", key.point)),
        extensions,
    )
    return _pem("CERTIFICATE", _der(0x30, body, ECDSA_SHA256, _der(3, b"\0", issuer_key.sign(body))))


def _write(directory: Path, name: str, certificate: str, key: KeyPair) -> tuple[Path, Path]:
    certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    certificate_file.write_text(certificate)
    key_file.write_text(key.pem())
    return certificate_file, key_file


def make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for this DNS name and for 127.0.0.1, valid today, and its key: (certificate file, key file)."""
    key = KeyPair()
    until = datetime.now(UTC) + timedelta(days=1)
    return _write(directory, name, _certificate(name, key, name, key, is_authority=True, until=until), key)


@attrs.frozen
class Authority:
    """A certificate authority; its own certificate is in `file`."""

    directory: Path
    name: str
    key: KeyPair = attrs.field(factory=KeyPair)

    @property
    def file(self) -> Path:
        """The authority's certificate, written at the first call."""
        path = self.directory / f"{self.name}.crt"
        if not path.exists():
            until = datetime.now(UTC) + timedelta(days=1)
            path.write_text(_certificate(self.name, self.key, self.name, self.key, is_authority=True, until=until))
        return path

    def issue(self, name: str, *, days: float = 1) -> tuple[Path, Path]:
        """A certificate for this DNS name and for 127.0.0.1 that ends in so many days: (certificate file, key file)."""
        key = KeyPair()
        until = datetime.now(UTC) + timedelta(days=days)
        certificate = _certificate(name, key, self.name, self.key, is_authority=False, until=until)
        return _write(self.directory, name, certificate, key)
