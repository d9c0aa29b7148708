"""What the value of a setting may be, and how it may be written. `description` is what is expected, in words."""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv6Address
from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from redis.asyncio import ConnectionPool, SSLConnection
from redis.exceptions import RedisError
from yarl import URL

from realtime.protocol.messages import COMMAND_NAMES
from realtime.rate_limits import TOTAL

MIN_KEY_LENGTH = 16
MOST_PORT = 65535
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key for HS256 has at least 256 bits


_LIBPQ = {"postgresql", "postgres"}  # their host may stand in the query
_LIBPQ_VERIFYING = {"require", "verify-ca", "verify-full"}  # without a root certificate the first does not
# The folder of a socket, or a host.
_LIBPQ_PLACE = re.compile(r"/.*|(?:\[[^\[\]]+\]|(?P<name>[^\[\]:@/]+))(?::(?P<port>\d*))?")


class Flaw(ValueError):
    """What is wrong with a value, where what is expected does not tell it; in words that give no secret away."""


def url_of(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        is_elsewhere = (url.scheme == "unix" and url.path) or (url.scheme in _LIBPQ and url.query)
        has_place = bool(url.hostname or is_elsewhere)
        # libpq's form with several hosts has a port in each, which urlsplit cannot read.
        is_port_legible = "," in url.netloc or url.port is None or url.port > 0
        has_blank = any(map(str.isspace, value.get_secret_value()))
        has_nul = "\0" in unquote(value.get_secret_value())  # where C and PostgreSQL would take it to end
        if url.scheme not in schemes or not has_place or not is_port_legible or has_blank or has_nul:
            raise ValueError
        if "%" not in (url.hostname or ""):  # the folder of a socket
            for host in (url.hostname or "").split(","):
                is_host(host)
        return value

    return AfterValidator(check)


def is_host(value: str) -> str:
    """Whatever cannot be looked up: Python raises no OSError for it, but a UnicodeError, which is a ValueError."""
    value.encode("idna")
    return value


def is_http_url(value: str) -> str:
    """Whatever aiohttp finds wrong with it only when it connects."""
    url = urlsplit(value)
    if not url.hostname or url.port == 0:
        raise ValueError
    is_host(url.hostname)
    return value


def is_of_asyncpg(value: SecretStr) -> SecretStr:
    """Whatever asyncpg finds wrong with it only when it connects, and then raises no error of its own for."""
    url = urlsplit(value.get_secret_value())
    query = {key: last for key, [*_, last] in parse_qs(url.query, strict_parsing=bool(url.query)).items()}
    # The first "@" ends the user's name and password there, the last one for urlsplit.
    before, at, after = url.netloc.partition("@")
    lists = (after if at else before, query.get("host", ""))
    places = [place for each in lists if each for place in each.split(",")]
    ports = [*map(_libpq_port, places), *(query["port"].split(",") if "port" in query else ())]
    if not all(0 < int(port) <= MOST_PORT for port in ports):
        raise ValueError
    _check_libpq_certificates(query)
    return value


def _check_libpq_certificates(query: Mapping[str, str]) -> None:
    """Those that asyncpg reads in this mode: only when it connects, and its OSError is as of a server that is away."""
    mode = query.get("sslmode", "prefer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        if mode in _LIBPQ_VERIFYING and (file := query.get(name)):
            with _flaw_of(name):
                context.load_verify_locations(file)
    if mode != "disable" and (certificate := query.get("sslcert")):
        with _flaw_of("sslcert or sslkey"):
            if key := query.get("sslkey"):
                context.load_cert_chain(certificate, key, password=query.get("sslpassword", ""))
            else:  # the key may be where libpq looks for it
                context.load_verify_locations(certificate)


def _libpq_port(place: str) -> str:
    match = _LIBPQ_PLACE.fullmatch(place)
    if match is None:
        raise ValueError
    if "%" not in (name := match["name"] or ""):
        is_host(name)
    return match["port"] or "5432"


def is_of_aiormq(value: SecretStr) -> SecretStr:
    """With certificates that can be used, if it names some: aiormq reads them only when it connects."""
    url = URL(value.get_secret_value())
    if url.scheme == "amqps":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        file, folder, data = (url.query.get(name) for name in ("cafile", "capath", "cadata"))
        with _flaw_of("cafile, capath or cadata"):
            if file or folder or data:
                context.load_verify_locations(file, folder, b64decode(data) if data else None)
        if certificate := url.query.get("certfile"):
            with _flaw_of("certfile or keyfile"):
                # There is nobody who could be asked for a password.
                context.load_cert_chain(certificate, url.query.get("keyfile"), password="")
    return value


@contextmanager
def _flaw_of(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise Flaw(f"{what}: {reason or error}") from None


def is_of_redis(value: SecretStr) -> SecretStr:
    """Whatever redis-py finds wrong with it only when it is used."""
    url = value.get_secret_value()
    try:
        connection = ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        raise ValueError from None
    if not url.startswith("unix:") and not re.fullmatch(r"/?|/\d+", urlsplit(url).path):
        raise ValueError  # it would be taken for database 0
    if isinstance(connection, SSLConnection):
        tls = connection.ssl_context
        tls.password = tls.password or ""  # there is nobody who could be asked for it
        with _flaw_of("ssl_ca_certs, ssl_ca_data, ssl_certfile, ssl_keyfile or ssl_ciphers"):
            tls.get()
    return value


def is_long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError
    return value


def is_public_key(kind: Literal["RSA", "EC"]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            key = RSAKey.import_key(value) if kind == "RSA" else ECKey.import_key(value)
        except (JoseError, ValueError, TypeError):
            raise ValueError from None
        if key.is_private:
            raise ValueError
        return value

    return check


def is_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    is_sendable = text.isascii() and text.isprintable() and text == text.strip()  # HTTP takes blanks off both ends
    if len(text) < MIN_KEY_LENGTH or not is_sendable:
        raise ValueError
    return value


def like(pattern: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if not re.fullmatch(pattern, value.get_secret_value()):
            raise ValueError
        return value

    return AfterValidator(check)


MOST_AMQP_BYTES = 255


def _is_amqp_name(value: str) -> str:
    if value.startswith("amq.") or len(value.encode()) > MOST_AMQP_BYTES:
        raise ValueError
    return value


def _seconds(value: object) -> object:
    """Of a number, or of a duration as Go writes it: "300s", "1h30m"."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return value
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error:
        raise ValueError(value) from None
    return value


def _is_limitable(command: str) -> str:
    if command not in {TOTAL, *COMMAND_NAMES.values()}:
        raise ValueError
    return command


def per_seconds(rate: str) -> tuple[int, float]:
    """The count of a rate, and the seconds that it is for."""
    match = RATE.match(rate)
    if match is None:
        raise ValueError(rate)
    count, number, unit = match.groups()
    return int(count), int(number or 1) * _UNITS[unit]


def _as_browsers_write_it(host: str) -> str:
    """Also an IPv6 address, which can be written in several ways."""
    return f"[{IPv6Address(host[1:-1])}]" if host.startswith("[") else host


def _is_sent_by_browsers(origin: str) -> str:
    """They write a name that is not in ASCII as IDNA has it, and leave out the port that its scheme has anyway."""
    scheme, _, place = origin.lower().partition("://")
    is_usual = (scheme, place.rpartition(":")[2]) in {("http", "80"), ("https", "443")}
    if not origin.isascii() or is_usual or (scheme in {"http", "https"} and not place):
        raise ValueError
    return origin


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


RATE = re.compile(r"^([1-9]\d{0,6})/([1-9]\d{0,5})?(ms|s|m|h)$")
"""So many, in so many units of time; one if the number is missing."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")

Host = Annotated[
    str, Field(pattern=r"^[^\s/\[\]]+$", description="a host name or an IP address"), AfterValidator(is_host)
]
Port = Annotated[int, Field(ge=0, le=MOST_PORT, description=f"a port from 0 to {MOST_PORT}")]
Count = Annotated[int, Field(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
# PostgreSQL counts its timeouts in int32 milliseconds.
Seconds = Annotated[
    Annotated[float, Field(gt=0, le=2_000_000, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds, more than 0 and at most 2000000, or a duration like "25s" or "1m"'),
]
Pause = Annotated[
    Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds from 0 to 3600, or a duration like "2s"'),
]
Age = Annotated[
    Annotated[float, Field(ge=1, le=315_360_000, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds from 1 to 315360000 (ten years), or a duration like "24h"'),
]
Size = Annotated[int, Field(ge=1024, le=2**31 - 1, description="bytes from 1024 to 2147483647")]
AmqpShort = Annotated[int, Field(ge=1, le=65535, description="a whole number from 1 to 65535")]
Name = Annotated[str, Field(min_length=1, max_length=255, description="a name of 1 to 255 characters")]
AmqpName = Annotated[
    str,
    Field(min_length=1, description='a name of 1 to 255 bytes that does not begin with "amq."'),
    AfterValidator(_is_amqp_name),
]
Hosts = Annotated[
    tuple[
        Annotated[
            str,
            Field(pattern=r"^([-a-zA-Z0-9_]+(\.[-a-zA-Z0-9_]+)*\.?|\[[0-9a-fA-F:.]+\])$"),
            AfterValidator(_as_browsers_write_it),
        ],
        ...,
    ],
    BeforeValidator(as_tuple),
    Field(description='a list of names or addresses like "shop.example", "10.0.0.1" or "[::1]", without port and *'),
]
Origins = Annotated[
    tuple[
        Annotated[
            str,
            Field(pattern=r"^(null|\*[^\s,/]*|[^\s,/]+://[^\s,/]*)$"),
            AfterValidator(_is_sent_by_browsers),
        ],
        ...,
    ],
    BeforeValidator(as_tuple),
    Field(description='a list of origins like "https://shop.example", in which * stands for anything'),
]
Text = Annotated[str, Field(description="text")]
Switch = Annotated[bool, Field(description="true or false")]
Channel = Annotated[str, Field(pattern=r"^([!-z|~]|\{subject\})+$", max_length=255)]
Duration = Annotated[
    Annotated[float, Field(ge=0, le=315_360_000, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds from 0 to 315360000, or a duration like "300s", "5m" or "24h"'),
]
Rates = Annotated[
    Mapping[Annotated[str, AfterValidator(_is_limitable)], Annotated[str, Field(pattern=RATE.pattern)]],
    Field(description='a table from commands, or "total", to rates like "20/s" or "100/10s"'),
]
Delay = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)],
    BeforeValidator(_seconds),
    Field(description='seconds from 0 to 1, or a duration like "50ms"'),
]
Pattern = Annotated[str, AfterValidator(_is_pattern), Field(description="a regular expression")]
Length = Annotated[int, Field(ge=0, le=10_000_000, description="a whole number from 0 to 10000000")]
Expiry = Annotated[
    Annotated[float, Field(ge=0, le=10 * 366 * 86_400)],
    BeforeValidator(_seconds),
    Field(description='seconds from 0 to ten years, or a duration like "24h"'),
]
