from __future__ import annotations

import dataclasses
import json
import os
import re
import ssl
import tomllib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from realtime.namespaces import ChannelOptions as Options
from server.config import OTHER_VARIABLES, ConfigError, default_config_file, load
from server.settings import NAMES, SECTIONS, ChannelOptions, Settings, variable
from server.values import per_seconds

ROOT = Path(__file__).parents[3]
SECRET = "s" * 32
PRODUCTION = {
    "ORDERWIRE_AUTH__TOKEN_SECRET": SECRET,
    "ORDERWIRE_DATABASE__URL": "postgresql://orderwire:hunter2@db.example/orderwire",
    "ORDERWIRE_REDIS__URL": "rediss://:hunter2@cache.example:6380/0",
    "ORDERWIRE_BROKER__URL": "amqps://orderwire:hunter2@mq.example/shop",
}


def _keys(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, table in tables.items():
        section = prefix + name
        if section in SECTIONS:
            yield from _keys(table, f"{section}.")
        else:
            yield prefix.removesuffix("."), name


def written(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text)
    return path


def complaint(config_file: Path | None = None, /, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(config_file, environ)
    return str(caught.value)


def test_config_toml_states_exactly_the_defaults() -> None:
    tables = tomllib.loads(default_config_file().read_text())
    assert load(None, {}) == Settings.model_construct()
    stated = set(_keys(tables))
    unstated = {("database", "url"), ("redis", "url"), ("broker", "url"), ("auth", "token_secret"), ("http_api", "key")}
    unstated |= {("payments", "stripe_secret_key"), ("payments", "stripe_webhook_secret")}
    keys = ("hmac_secret_key", "rsa_public_key", "ecdsa_public_key", "jwks_public_endpoint")
    unstated |= {(section, key) for section in ("client.token", "client.subscription_token") for key in keys}
    # To state that there is none would keep a reader from adding one.
    unstated |= {("channel", "namespaces"), ("channel", "without_namespace")}
    assert stated == {*NAMES} - unstated


def test_defaults_apply_without_any_line_in_the_file(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), {}) == Settings.model_construct()


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nport = 1\nhost = "127.0.0.3"\nshutdown_grace = 3')
    environ = {"ORDERWIRE_SERVER__PORT": "2", "ORDERWIRE_SERVER__HOST": "127.0.0.2"}
    server = load(path, environ, port=4).server
    assert (server.port, server.host, server.shutdown_grace) == (4, "127.0.0.2", 3.0)


def test_environment_gives_lists_with_commas_and_tables_in_json() -> None:
    settings = load(
        None,
        {
            "ORDERWIRE_CLIENT__ALLOWED_ORIGINS": "https://*.example.com, https://shop.example",
            "ORDERWIRE_EVENTS__CHANNELS": '{"invoice.sent": "order:{subject}"}',
            "ORDERWIRE_SERVER__ALLOWED_HOSTS": "",
        },
    )
    assert settings.client.allowed_origins == ("https://*.example.com", "https://shop.example")
    assert settings.events.channels == {"invoice.sent": "order:{subject}"}
    assert settings.server.allowed_hosts == ()


@pytest.mark.parametrize(
    ("rate", "means"), [("20/s", (20, 1.0)), ("100/10s", (100, 10.0)), ("1/500ms", (1, 0.5)), ("6/2m", (6, 120.0))]
)
def test_a_rate_is_so_many_in_a_time(rate: str, means: tuple[int, float]) -> None:
    settings = load(None, {"ORDERWIRE_CLIENT__RATE_LIMIT__USER": json.dumps({"publish": rate})})
    assert per_seconds(settings.client.rate_limit.user["publish"]) == means


@pytest.mark.parametrize(
    "table",
    ['{"publish": "0/s"}', '{"publish": "9/0s"}', '{"publish": "20"}', '{"publsh": "20/s"}', '{"total": 20}', "20/s"],
)
def test_what_is_no_rate_of_a_command_is_explained(table: str) -> None:
    with pytest.raises(ConfigError, match="a table from commands") as caught:
        load(None, {"ORDERWIRE_CLIENT__RATE_LIMIT__USER": table})
    assert len(caught.value.faults) == 1


def test_production_may_listen_anywhere() -> None:
    settings = load(None, PRODUCTION | {"ORDERWIRE_SERVER__HOST": "0.0.0.0"})
    assert not settings.is_embedded
    assert settings.server.host == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_embedded_default_may_listen_on_loopback(host: str) -> None:
    assert load(None, {}, host=host).is_embedded


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///orderwire?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/orderwire",
        "postgres://a:5432,b:5432/orderwire",
        "postgres:///orderwire?host=a,[::1]:5433&port=5432,5433",
        "postgresql://[::1]/x",
        "postgresql://us%40er:p%40ss@[::1]:5432,b/x?sslmode=require",
    ],
)
def test_forms_of_postgres_urls_are_accepted(url: str) -> None:
    settings = load(None, PRODUCTION | {"ORDERWIRE_DATABASE__URL": url})
    assert settings.database.url
    assert settings.database.url.get_secret_value() == url


def test_secrets_are_read_from_files_without_the_last_newline(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "url").write_text("redis://:hunter2@cache/0\n")
    settings = load(
        None,
        {
            "ORDERWIRE_AUTH__TOKEN_SECRET_FILE": str(tmp_path / "secret"),
            "ORDERWIRE_REDIS__URL_FILE": str(tmp_path / "url"),
        },
    )
    assert settings.auth.token_secret
    assert settings.auth.token_secret.get_secret_value() == SECRET
    assert settings.redis.url
    assert settings.redis.url.get_secret_value() == "redis://:hunter2@cache/0"


def test_file_may_hold_a_url_without_a_password(tmp_path: Path) -> None:
    path = written(tmp_path, '[redis]\nurl = "redis://cache/0"')
    assert load(path, {"ORDERWIRE_AUTH__TOKEN_SECRET": SECRET}).redis.url


def test_secrets_are_in_no_repr_and_no_fault() -> None:
    settings = load(None, PRODUCTION)
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET not in repr(settings)
    bad = PRODUCTION | {"ORDERWIRE_AUTH__TOKEN_SECRET": "hunter2", "ORDERWIRE_DATABASE__URL": "mysql://x:hunter2@db/x"}
    assert "hunter2" not in complaint(None, **bad)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None, {}).server.port = 1


def test_other_variables_are_left_alone() -> None:
    load(None, {"ORDERWIRE_DATA_DIR": "/x", "ORDERWIRE_TEST_REDIS_URL": "redis://x", "PATH": "/bin", "ORDERWIRER": ""})


SECONDS = 'expected seconds, more than 0 and at most 2000000, or a duration like "25s" or "1m"'


def test_times_may_be_durations() -> None:
    variables = {"CLIENT__PING_INTERVAL": "1m30s", "STREAMS__RETENTION": "24h", "SERVER__SHUTDOWN_PAUSE": "500ms"}
    variables |= {"ORDERS__UNPAID_EXPIRY": "24h", "ORDERS__DRAFT_EXPIRY": "720h"}
    settings = load(None, {f"ORDERWIRE_{name}": value for name, value in variables.items()})
    assert (settings.client.ping_interval, settings.streams.retention) == (90.0, 86_400.0)
    assert settings.server.shutdown_pause == 0.5
    assert (settings.orders.unpaid_expiry, settings.orders.draft_expiry) == (86_400.0, 2_592_000.0)


@pytest.mark.parametrize(
    "origins",
    [
        "https://shop.example",
        "*",
        "https://*.example,http://localhost:3000",
        "*://a",
        "*.example",
        "null",
        "file://",
        "http://a:443",
        "https://[::1]:*",
    ],
)
@pytest.mark.parametrize("section", ["server", "client"])
def test_origins_are_taken_as_browsers_send_them(section: str, origins: str) -> None:
    settings = load(None, {f"ORDERWIRE_{section}__ALLOWED_ORIGINS".upper(): origins})
    assert getattr(settings, section).allowed_origins == tuple(origins.split(","))


ORIGINS = 'expected a list of origins like "https://shop.example", in which * stands for anything'
HOSTS = 'expected a list of names or addresses like "shop.example", "10.0.0.1" or "[::1]", without port and *'


def test_hosts_are_taken_as_browsers_send_them() -> None:
    given = "Shop.example,shop.example.,my_host,10.0.0.1,[::1],[0:0:0::1]"
    hosts = ("Shop.example", "shop.example.", "my_host", "10.0.0.1", "[::1]", "[::1]")
    assert load(None, {"ORDERWIRE_SERVER__ALLOWED_HOSTS": given}).server.allowed_hosts == hosts


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(
            ("SERVER__ALLOWED_HOSTS", host, f'{HOSTS}, not ["{host}"]')
            for host in ("*", "*.example", "a:80", "https://a.example", "a/", "::1", "[::x]", "[1.2.3]", "a..b", "ä.b")
        ),
        *(
            (name, url, f'expected {what}, not "{url}"')
            for name, what in (
                ("CLIENT__TOKEN__JWKS_PUBLIC_ENDPOINT", "an http or https URL"),
                ("PAYMENTS__STRIPE_API_BASE", "an http or https URL without a path, or nothing"),
            )
            for url in ("https://a:99999", "https://a..b", "https://:80", "https://[::x", "https://a:0")
        ),
        (
            "PAYMENTS__STRIPE_API_BASE",
            "https://a?x=1",
            'expected an http or https URL without a path, or nothing, not "https://a?x=1"',
        ),
        ("SERVER__PORT", "eighty", 'expected a port from 0 to 65535, not "eighty"'),
        ("SERVER__PORT", "65536", 'expected a port from 0 to 65535, not "65536"'),
        ("SERVER__PORT", "", 'expected a port from 0 to 65535, not ""'),
        ("SERVER__HOST", "", 'expected a host name or an IP address, not ""'),
        ("SERVER__HOST", "a..b", 'expected a host name or an IP address, not "a..b"'),
        ("SERVER__MAX_BODY_BYTES", "1", 'expected bytes from 1024 to 2147483647, not "1"'),
        (
            "SERVER__SHUTDOWN_GRACE",
            "0",
            'expected seconds, more than 0 and at most 2000000, or a duration like "25s" or "1m", not "0"',
        ),
        (
            "SERVER__SHUTDOWN_GRACE",
            "nan",
            'expected seconds, more than 0 and at most 2000000, or a duration like "25s" or "1m", not "nan"',
        ),
        (
            "SERVER__SHUTDOWN_GRACE",
            "inf",
            'expected seconds, more than 0 and at most 2000000, or a duration like "25s" or "1m", not "inf"',
        ),
        ("DATABASE__POOL_SIZE", "-1", 'expected a whole number from 1 to 1000, not "-1"'),
        ("DATABASE__POOL_SIZE", "1.5", 'expected a whole number from 1 to 1000, not "1.5"'),
        ("DATABASE__URL", "", "expected a URL like postgresql://user@host/database"),
        ("DATABASE__URL", "postgresql://", "expected a URL like postgresql://user@host/database"),
        ("DATABASE__URL", "postgresql://h:99999/x", "expected a URL like postgresql://user@host/database"),
        ("DATABASE__URL", "mysql://db/x", "expected a URL like postgresql://user@host/database"),
        ("REDIS__URL", "http://x", "expected a URL like redis://host:6379/0, rediss://host/0 or unix:///socket"),
        ("REDIS__URL", "unix://", "expected a URL like redis://host:6379/0, rediss://host/0 or unix:///socket"),
        *(
            ("REDIS__URL", url, "expected a URL like redis://host:6379/0, rediss://host/0 or unix:///socket")
            for url in (
                "redis://h?db=abc",
                "redis://?db=1",
                "redis://h?foo=bar",
                "rediss://h?ssl_cert_reqs=foo",
                "redis://h/abc",
            )
        ),
        ("BROKER__URL", "mq.example", "expected a URL like amqp://user@host/ or amqps://user@host/"),
        ("DATABASE__URL", "postgresql://a,b..c/x", "expected a URL like postgresql://user@host/database"),
        *(
            ("DATABASE__URL", url, "expected a URL like postgresql://user@host/database")
            for url in (
                "postgresql://?port=abc",
                "postgresql:///x?host=a&port=0",
                "postgresql:///x?host=a..b",
                "postgresql:///x?host=::1",
                "postgresql:///x?host=a,",
                "postgresql:///x?host=a&sslmode",
                "postgresql://a:1,b:70000/x",
                "postgresql://a:1,/x",
                "postgresql://user:p@ss@a/x",
                "postgresql://127.0.0.1%00a/x",
                "postgresql:///x?host=/tmp%00a",
                "postgresql://u%00@a/x",
            )
        ),
        ("REDIS__URL", "redis://a..b", "expected a URL like redis://host:6379/0, rediss://host/0 or unix:///socket"),
        ("BROKER__URL", "amqp://rabbit..svc/", "expected a URL like amqp://user@host/ or amqps://user@host/"),
        *(
            ("BROKER__URL", url, "expected a URL like amqp://user@host/ or amqps://user@host/")
            for url in ("amqp://a b/", "amqp:///?x=1", "amqps://user@?x=1")
        ),
        (
            "BROKER__EXCHANGE",
            "amq.topic",
            'expected a name of 1 to 255 bytes that does not begin with "amq.", not "amq.topic"',
        ),
        ("BROKER__PREFETCH", "65536", 'expected a whole number from 1 to 65535, not "65536"'),
        *(
            ("HTTP_API__KEY", key, "expected at least 16 printable ASCII characters, without blanks around")
            for key in ("short", "ä" * 16, " " * 16, f"{'k' * 16} ")
        ),
        ("AUTH__TOKEN_SECRET", "short", "expected at least 32 bytes"),
        (
            "STREAMS__RETENTION",
            "0",
            'expected seconds from 1 to 315360000 (ten years), or a duration like "24h", not "0"',
        ),
        ("CLIENT__PING_INTERVAL", "1 m", f'{SECONDS}, not "1 m"'),
        *(
            (f"{section}__ALLOWED_ORIGINS", origin, f'{ORIGINS}, not ["{origin}"]')
            for section in ("SERVER", "CLIENT")
            for origin in ("shop.example", "https://a/", "https://", "https://a:443", "http://a:80", "https://ä.b")
        ),
        (
            "EVENTS__CHANNELS",
            '{"invoice.sent": "order:{subjct}"}',
            "expected a table from event types to channels of 1 to 255 ASCII characters, without { and } but for"
            ' {subject}, not {"invoice.sent": "order:{subjct}"}',
        ),
        (
            "EVENTS__CHANNELS",
            "{",
            "expected a table from event types to channels of 1 to 255 ASCII characters, without { and } but for"
            ' {subject}, not "{"',
        ),
        ("LOG__LEVEL", "loud", 'expected debug, info, warning or error, not "loud"'),
        ("LOG__FORMAT", "xml", 'expected json, console or auto, not "xml"'),
        ("SERVER__PROT", "1", "no such setting; did you mean ORDERWIRE_SERVER__PORT?"),
        ("SERVER_PORT", "1", "no such setting; did you mean ORDERWIRE_SERVER__PORT?"),
        ("AUTH__TOKEN_SECRET_FLIE", "x", "no such setting; did you mean ORDERWIRE_AUTH__TOKEN_SECRET_FILE?"),
        ("DATADIR", "/x", "no such setting; did you mean ORDERWIRE_DATA_DIR?"),
        ("XYZZY", "1", "no such setting"),
        ("SERVER__HOST_FILE", "x", "no such setting; did you mean ORDERWIRE_SERVER__HOST?"),
        (
            "SERVER__HOST",
            "0.0.0.0",
            'expected a loopback address, not "0.0.0.0": the embedded default serves this machine only; set'
            " ORDERWIRE_DATABASE__URL, ORDERWIRE_REDIS__URL, ORDERWIRE_BROKER__URL to serve others",
        ),
        (
            "CLIENT__PONG_TIMEOUT",
            "25",
            "expected less than client.ping_interval (25), not 25",
        ),
        (
            "STREAMS__HEAD_CHECK_INTERVAL_WITHOUT_BUS",
            "3",
            "expected at most streams.head_check_interval (2), not 3",
        ),
        ("DATABASE__ACQUIRE_TIMEOUT", "3", "expected at most database.deadline (2.5), not 3"),
        ("BROKER__DEAD_LETTER_QUEUE", "orderwire.fanout.3", "expected another name than broker.fanout_queue has"),
        (
            "REDIS__CLUSTER",
            "true",
            "expected a redis.url of a server of the cluster, without a database number",
        ),
        (
            "AUTH__TOKEN_SECRET_FILE",
            "/no/such/file",
            "expected a file that can be read, not /no/such/file: No such file or directory",
        ),
    ],
)
def test_bad_variable_is_explained_on_one_line(name: str, value: str, expected: str) -> None:
    assert complaint(**{f"ORDERWIRE_{name}": value}) == f"ORDERWIRE_{name}: {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[server]\nport = "8000"', '[server] port: expected a port from 0 to 65535, not "8000"'),
        ("[server]\nport = true", "[server] port: expected a port from 0 to 65535, not true"),
        ("[server]\nport = 80.0", "[server] port: expected a port from 0 to 65535, not 80.0"),
        ("[server]\nhost = 1", "[server] host: expected a host name or an IP address, not 1"),
        ("[server]\nprot = 1", "[server] prot: no such setting; did you mean port?"),
        ("[sever]\nport = 1", "[sever]: no such section; did you mean server?"),
        ("port = 1", "[port]: no such section"),
        ("server = 1", "server: expected a table [server]"),
        (
            '[client]\nallowed_origins = "https://a"',
            f'[client] allowed_origins: {ORIGINS}, not "https://a"',
        ),
        (
            "[client]\nallowed_origins = [1]",
            f"[client] allowed_origins: {ORIGINS}, not [1]",
        ),
        (
            '[events.channels]\n"a.b" = 1',
            "[events] channels: expected a table from event types to channels of 1 to 255 ASCII characters, without {"
            ' and } but for {subject}, not {"a.b": 1}',
        ),
        (
            f'[auth]\ntoken_secret = "{SECRET}"',
            "[auth] token_secret: no secrets in this file: set ORDERWIRE_AUTH__TOKEN_SECRET or"
            " ORDERWIRE_AUTH__TOKEN_SECRET_FILE",
        ),
        (
            '[database]\nurl = "postgresql://u:hunter2@db/x"',
            "[database] url: no secrets in this file: set ORDERWIRE_DATABASE__URL or ORDERWIRE_DATABASE__URL_FILE",
        ),
        (
            '[redis]\nurl = "unix:///run/redis.sock?password=hunter2"',
            "[redis] url: no secrets in this file: set ORDERWIRE_REDIS__URL or ORDERWIRE_REDIS__URL_FILE",
        ),
        ("[server]\nport = = 1", "expected TOML: Invalid value (at line 2, column 8)"),
        ("[server]\nport = " + 10_000 * "[", "expected TOML: maximum recursion depth exceeded"),
    ],
)
def test_bad_line_in_the_file_is_explained_on_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    assert complaint(path) == f"{path}: {expected}"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Files with one that it signed itself, and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mq.example")])
    today, serial = datetime.now(UTC), x509.random_serial_number()
    made = x509.CertificateBuilder(name, name, key.public_key(), serial, today, today + timedelta(days=1))
    pem, unlocked = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "tls.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    (tmp_path / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unlocked))
    return tmp_path / "tls.crt", tmp_path / "tls.key"


@pytest.fixture
def files(certificate: tuple[Path, Path]) -> dict[str, Path]:
    """The certificate, its key, and the key behind a password."""
    file, key = certificate
    private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    form, locks = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"hunter3")
    locked = key.with_name("locked.key")
    locked.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, locks))
    return {"FILE": file, "KEY": key, "LOCKED": locked}


def assert_explained(variable: str, url: str, usual: str, flaw: str, files: dict[str, Path]) -> None:
    """With the paths of the files for their words this URL is refused for that flaw, and no password is told."""
    for word, path in files.items():
        url = re.sub(rf"={word}\b", f"={path}", url)
    told = complaint(None, **PRODUCTION | {variable: url})
    assert re.fullmatch(rf"{re.escape(f'{variable}: expected a URL like {usual}')} \({flaw}\)", told)
    assert "hunter" not in told


def test_certificates_for_the_broker_may_be_named(certificate: tuple[Path, Path]) -> None:
    file, key = certificate
    data = quote(b64encode(ssl.PEM_cert_to_DER_cert(file.read_text())))
    for query in (f"cafile={file}", f"cadata={data}", f"cafile={file}&certfile={file}&keyfile={key}", "cafile="):
        settings = load(None, PRODUCTION | {"ORDERWIRE_BROKER__URL": f"amqps://u:p@mq.example/?{query}"})
        assert settings.broker.url
    unread = PRODUCTION | {"ORDERWIRE_BROKER__URL": "amqp://u:p@mq.example/?cafile=/no/such/file"}
    assert load(None, unread).broker.url


@pytest.mark.parametrize(
    ("query", "flaw"),
    [
        ("cafile=/no/such/file", r"cafile, capath or cadata: No such file or directory"),
        ("cafile=KEY", r"cafile, capath or cadata: .*NO_CERTIFICATE.*"),
        ("cadata=a", r"cafile, capath or cadata: Invalid base64.*"),
        ("cadata=YWJj", r"cafile, capath or cadata: .*certificate.*"),
        ("certfile=/no/such/file", r"certfile or keyfile: No such file or directory"),
        ("certfile=FILE", r"certfile or keyfile: .+"),
        ("certfile=FILE&keyfile=LOCKED", r"certfile or keyfile: .+"),
    ],
)
def test_certificates_for_the_broker_that_cannot_be_used_are_explained(
    files: dict[str, Path], query: str, flaw: str
) -> None:
    url, usual = f"amqps://u:hunter2@mq.example/?{query}", "amqp://user@host/ or amqps://user@host/"
    assert_explained("ORDERWIRE_BROKER__URL", url, usual, flaw, files)


def test_certificates_for_redis_may_be_named(files: dict[str, Path]) -> None:
    file, key, locked = files.values()
    for query in (
        f"ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={key}",
        f"ssl_certfile={file}&ssl_keyfile={locked}&ssl_password=hunter3",
        "ssl_ca_certs=",
    ):
        settings = load(None, PRODUCTION | {"ORDERWIRE_REDIS__URL": f"rediss://:p@cache.example/0?{query}"})
        assert settings.redis.url


@pytest.mark.parametrize(
    ("query", "flaw"),
    [
        ("ssl_ca_certs=/no/such/file", "No such file or directory"),
        ("ssl_ca_certs=KEY", ".*NO_CERTIFICATE.*"),
        ("ssl_certfile=FILE", ".+"),
        ("ssl_keyfile=KEY", "certfile should be .*"),
        ("ssl_certfile=FILE&ssl_keyfile=LOCKED", ".+"),
        ("ssl_ciphers=none", ".*No cipher can be selected.*"),
    ],
)
def test_certificates_for_redis_that_cannot_be_used_are_explained(
    files: dict[str, Path], query: str, flaw: str
) -> None:
    url = f"rediss://:hunter2@cache.example/0?{query}"
    usual = "redis://host:6379/0, rediss://host/0 or unix:///socket"
    of = "ssl_ca_certs, ssl_ca_data, ssl_certfile, ssl_keyfile or ssl_ciphers"
    assert_explained("ORDERWIRE_REDIS__URL", url, usual, f"{of}: {flaw}", files)


def test_certificates_for_the_database_are_looked_at_where_they_will_be_read(certificate: tuple[Path, Path]) -> None:
    file, key = certificate
    none = "/no/such/file"
    for query in (
        f"sslmode=verify-full&sslrootcert={file}&sslcert={file}&sslkey={key}",
        f"sslcert={file}",
        f"sslmode=prefer&sslrootcert={none}",
        f"sslmode=disable&sslrootcert={none}&sslcert={none}",
        "sslmode=require&sslrootcert=",
    ):
        settings = load(None, PRODUCTION | {"ORDERWIRE_DATABASE__URL": f"postgresql://u:p@db.example/x?{query}"})
        assert settings.database.url


@pytest.mark.parametrize(
    ("query", "flaw"),
    [
        ("sslmode=verify-full&sslrootcert=/no/such/file", "sslrootcert: No such file or directory"),
        ("sslmode=require&sslrootcert=KEY", "sslrootcert: .*NO_CERTIFICATE.*"),
        ("sslmode=verify-ca&sslrootcert=FILE&sslcrl=/no/such/file", "sslcrl: No such file or directory"),
        ("sslcert=/no/such/file", "sslcert or sslkey: No such file or directory"),
        ("sslmode=require&sslcert=FILE&sslkey=FILE", "sslcert or sslkey: .+"),
        ("sslmode=require&sslcert=KEY", "sslcert or sslkey: .*NO_CERTIFICATE.*"),
    ],
)
def test_certificates_for_the_database_that_cannot_be_used_are_explained(
    files: dict[str, Path], query: str, flaw: str
) -> None:
    url, usual = f"postgresql://u:hunter2@db.example/x?{query}", "postgresql://user@host/database"
    assert_explained("ORDERWIRE_DATABASE__URL", url, usual, flaw, files)


def test_option_is_named_as_it_was_typed() -> None:
    with pytest.raises(ConfigError, match=r"^--port: expected a port from 0 to 65535, not 70000$"):
        load(None, {}, port=70000)


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path / "x.toml")
        == f"{tmp_path}/x.toml: expected a file that can be read: No such file or directory"
    )


def test_a_byte_order_mark_before_the_file_is_passed_over(tmp_path: Path) -> None:
    assert load(written(tmp_path, "\ufeff[server]\nport = 9000"), {}).server.port == 9000


def test_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff")
    assert complaint(tmp_path / "x.toml").startswith(f"{tmp_path}/x.toml: expected TOML: 'utf-8' codec")


def test_secret_in_a_variable_and_in_a_file_is_an_error(tmp_path: Path) -> None:
    environ = PRODUCTION | {"ORDERWIRE_AUTH__TOKEN_SECRET_FILE": str(tmp_path)}
    assert complaint(None, **environ) == (
        "ORDERWIRE_AUTH__TOKEN_SECRET_FILE: expected only one of this and ORDERWIRE_AUTH__TOKEN_SECRET, not both"
    )


@pytest.mark.parametrize("given", ["provider", "key"])
def test_payments_by_stripe_need_both_its_keys(given: str) -> None:
    environment = {
        "provider": {"ORDERWIRE_PAYMENTS__PROVIDER": "stripe"},
        "key": {"ORDERWIRE_PAYMENTS__STRIPE_SECRET_KEY": "sk_test_1"},
    }[given]
    with pytest.raises(ConfigError) as refused:
        load(None, environment)
    assert ("ORDERWIRE_PAYMENTS__STRIPE_SECRET_KEY:" in str(refused.value)) == (given == "provider")
    assert "ORDERWIRE_PAYMENTS__STRIPE_WEBHOOK_SECRET:" in str(refused.value)
    assert "sk_test_1" not in str(refused.value)


@pytest.mark.parametrize("name", ["DATABASE", "REDIS", "BROKER"])
def test_any_external_part_needs_a_token_secret(name: str) -> None:
    url = f"ORDERWIRE_{name}__URL"
    assert complaint(None, **{url: PRODUCTION[url]}) == (
        "ORDERWIRE_AUTH__TOKEN_SECRET: expected at least 32 bytes (or ORDERWIRE_AUTH__TOKEN_SECRET_FILE, a path),"
        " because a URL is set"
    )


def test_several_faults_get_a_line_each(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = -1\n[log]\nlevl = 1")
    assert complaint(path, ORDERWIRE_LOG__LEVEL="x").count("\n") == 2


NEWS = 'name = "news"\nhistory_size = 10\nhistory_ttl = "1h30m"'


def test_namespaces_come_from_the_file_or_as_json_from_a_variable(tmp_path: Path) -> None:
    path = written(tmp_path, f"[[channel.namespaces]]\n{NEWS}\n[channel.without_namespace]\nforce_recovery = false")
    given = load(path, {}).channel
    as_json = '[{"name": "news", "history_size": 10, "history_ttl": 5400}]'
    assert given.namespaces == load(path, {"ORDERWIRE_CHANNEL__NAMESPACES": as_json}).channel.namespaces
    assert [(each.name, each.history_size, each.history_ttl) for each in given.namespaces] == [("news", 10, 5400.0)]
    assert given.without_namespace is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("namespaces = 3", "namespaces: expected an array of tables of channel options, not 3"),
        ("without_namespace = []", "without_namespace: expected a table of channel options, not []"),
        ("namespaces = [3]", "namespaces[0]: expected a table of channel options, not 3"),
        ("namespaces = [{}]", "namespaces[0] name: expected a name of 2 or more of a-z A-Z 0-9 _ - ."),
        (
            'namespaces = [{name = "n"}]',
            'namespaces[0] name: expected a name of 2 or more of a-z A-Z 0-9 _ - ., not "n"',
        ),
        (
            'without_namespace = {history_ttl = "5x"}',
            'without_namespace history_ttl: expected seconds from 0 to 315360000, or a duration like "300s", "5m"'
            ' or "24h", not "5x"',
        ),
        (
            "without_namespace = {histry_size = 1}",
            "without_namespace histry_size: no such setting; did you mean history_size?",
        ),
        (
            'namespaces = [{name = "orders"}]',
            'namespaces: expected another name than "orders", which is the domain\'s',
        ),
        (
            'namespaces = [{name = "aa"}, {name = "aa"}]',
            'namespaces: expected each name once, not "aa" again',
        ),
        (
            'without_namespace = {history_size = 1, history_ttl = 1, allowed_delta_types = ["fossil"],'
            " delta_publish = true, conflate = true}",
            "without_namespace: expected no allowed_delta_types, because conflate and exclude_publisher leave some out",
        ),
        (
            "without_namespace = {history_size = 1}",
            "without_namespace: expected both history_size and history_ttl, or neither",
        ),
        (
            "without_namespace = {delta_publish = true}",
            'without_namespace: expected allowed_delta_types = ["fossil"], because delta_publish is for those who may'
            " ask",
        ),
        (
            'without_namespace = {allowed_delta_types = ["fossil"]}',
            "without_namespace: expected history_size and history_ttl, because a difference is to what came before",
        ),
        (
            'without_namespace = {allowed_delta_types = ["vcdiff"]}',
            'without_namespace allowed_delta_types[0]: expected ["fossil"], or an empty list, not "vcdiff"',
        ),
        (
            'namespaces = [{name = "aa", force_recovery = true}]',
            "namespaces aa: expected history_size and history_ttl, because recovery or positioning is forced",
        ),
    ],
)
def test_a_channel_option_that_cannot_be_is_explained_on_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, f"[channel]\n{text}")
    where = f"{path}: [channel]"
    assert complaint(path) == f"{where} {expected.replace('{where}', where)}"


def test_every_channel_option_is_documented_with_its_default_and_the_example_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "channels.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    defaults = ChannelOptions().model_dump()
    assert {name: json.loads(stated) for name, stated in rows.items()} == {**defaults, "allowed_delta_types": []}
    here = {field.name for field in dataclasses.fields(Options)}
    elsewhere = {"force_recovery_mode", "allowed_delta_types"}
    assert here == {*defaults, "is_cache", "takes_deltas", "is_personal", "is_domain"} - elsewhere
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert [each.name for each in load(written(tmp_path, example), {}).channel.namespaces] == ["news", "typing"]


def test_of_every_setting_it_is_known_what_is_expected() -> None:
    nameless = [name for name in NAMES if not type(SECTIONS[name[0]]).model_fields[name[1]].description]
    assert nameless == []


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    )
    for section, key in NAMES:
        default, stated = getattr(SECTIONS[section], key), rows.pop(variable(section, key), "")
        if isinstance(default, bool):
            assert stated == str(default).lower(), (section, key)
        elif isinstance(default, (int, float)):
            assert float(stated) == default, (section, key)
        elif isinstance(default, dict) and default:
            assert json.loads(stated.strip("`")) == default, (section, key)
        else:
            assert stated == (f"`{default}`" if isinstance(default, str) else "none"), (section, key)
    assert set(rows) == OTHER_VARIABLES


def test_this_environment_is_no_source_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ORDERWIRE_SERVER__PORT", "1")
    assert load(None, {}).server.port == 8000


def test_events_that_nobody_could_hear_are_not_told() -> None:
    with pytest.raises(ConfigError, match=r"ORDERWIRE_EVENTS__LIFE_CYCLE: expected broker.url"):
        load(None, {"ORDERWIRE_EVENTS__LIFE_CYCLE": "client,channel"})
    settings = load(None, {**PRODUCTION, "ORDERWIRE_EVENTS__LIFE_CYCLE": "client"})
    assert settings.events.life_cycle == ("client",)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"TOKEN__AUDIENCE": "a", "TOKEN__AUDIENCE_REGEX": "b"},
            "TOKEN__AUDIENCE_REGEX: expected client.token.audience",
        ),
        ({"TOKEN__ISSUER_REGEX": "("}, "TOKEN__ISSUER_REGEX: expected a regular expression"),
        ({"TOKEN__JWKS_PUBLIC_ENDPOINT": "ftp://x"}, "TOKEN__JWKS_PUBLIC_ENDPOINT: expected an http or https URL"),
        ({"TOKEN__USER_ID_CLAIM": ""}, "TOKEN__USER_ID_CLAIM: expected the name of a claim"),
        ({"SUBSCRIPTION_TOKEN__ENABLED": "true"}, "SUBSCRIPTION_TOKEN__ENABLED: expected one of the section's keys"),
    ],
)
def test_token_options_that_cannot_be_are_explained(variables: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {f"ORDERWIRE_CLIENT__{name}": value for name, value in variables.items()})
    [fault] = caught.value.faults
    assert fault.startswith(f"ORDERWIRE_CLIENT__{expected}")


def test_what_kubernetes_says_of_services_is_no_setting() -> None:
    said = {
        "ORDERWIRE_SERVICE_HOST": "10.0.0.1",
        "ORDERWIRE_SERVICE_PORT": "80",
        "ORDERWIRE_SERVICE_PORT_HTTP": "80",
        "ORDERWIRE_PORT": "tcp://10.0.0.1:80",
        "ORDERWIRE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "ORDERWIRE_PORT_80_TCP_PROTO": "tcp",
        "ORDERWIRE_PORT_80_TCP_PORT": "80",
        "ORDERWIRE_PORT_80_TCP_ADDR": "10.0.0.1",
        "ORDERWIRE_REDIS_SERVICE_HOST": "10.0.0.2",
        "ORDERWIRE_REDIS_PORT": "tcp://10.0.0.2:6379",
        "ORDERWIRE_REDIS_NAME": "/orderwire/orderwire-redis",
        "ORDERWIRE_REDIS_ENV_REDIS_VERSION": "7.4",
    }
    assert load(None, said) == load(None, {})


def test_a_setting_with_one_underscore_too_few_is_still_explained() -> None:
    with pytest.raises(ConfigError, match="did you mean ORDERWIRE_SERVER__PORT"):
        load(None, {"ORDERWIRE_SERVER_PORT": "8000"})
