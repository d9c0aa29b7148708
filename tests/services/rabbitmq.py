"""A private RabbitMQ node: the machine's own installation or Debian's, with data, cookie and name service of its own.

Two users, as in production: the relay's, and another application's that may also publish and consume.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import socket
import subprocess
from pathlib import Path

from tests.services import debian
from tests.services.server import Launch, Server, free_port, spawn

_RELAY, _FOREIGN = "orderwire", "billing"
_NODE = "private@localhost"
# +B i: Ctrl-C is nothing to it. Few schedulers, which do not spin while they wait: nodes run beside each other, and
# beside what is measured, on small machines.
_ERLANG = "-noinput +B i -kernel inet_dist_use_interface {127,0,0,1} +S 2:2"


class RabbitMQ(Server):
    """Started in 6 s, alone. Confirmed messages in durable queues survive `kill`.

    Declarations need a while: a queue that is younger than about two seconds at a `kill` may be gone afterwards, or, if
    it is a quorum queue, be there without a leader and never answer (seen with 3.10).
    """

    name = "rabbitmq"

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(8)
        self._distribution_port = free_port()
        self._name_service_port = free_port()
        self._name_service: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the relay: the user whose events of our own types are believed."""
        return self._url_for(_RELAY)

    @property
    def foreign_url(self) -> str:
        """For another application on the same virtual host."""
        return self._url_for(_FOREIGN)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints; takes 1-2 s. Raises CalledProcessError."""
        program = installation() / "usr/lib/rabbitmq/bin/rabbitmqctl"
        command: list[str | Path] = [program, "--node", _NODE, "--quiet", *arguments]
        environment = {**self._environment(), "PATH": self._path()}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        if self._name_service is not None:
            self._name_service.kill()
            self._name_service.wait()
        super().close()

    def _prepare(self) -> Launch:
        if not (self.folder / "home").exists():
            self._configure()
        environment = self._environment()
        if self._name_service is None:
            epmd = Launch(
                [_erts() / "bin/epmd", "-port", str(self._name_service_port), "-address", "127.0.0.1"], environment
            )
            self._name_service = spawn(epmd, self.folder, self.folder / "epmd.log")
        program = installation() / "usr/lib/rabbitmq/bin/rabbitmq-server"
        return Launch([program], {**environment, "PATH": self._path()})

    def _is_ready(self) -> bool:
        if b"completed with" not in self._log_of_this_start():
            return False
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"  # a method frame: connection.start

    def _configure(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_consistent_hash_exchange].\n")
        (self.folder / "definitions.json").write_text(json.dumps(self._definitions()))
        settings = (
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            f"load_definitions = {self.folder}/definitions.json",
            "loopback_users = none",
            "disk_free_limit.absolute = 64MB",
            "vm_memory_high_watermark.absolute = 512MiB",
            "log.file.level = warning",
        )
        (self.folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")
        programs = self.folder / "programs"
        programs.mkdir()
        _write_script(programs / "erl", _erl())

    def _definitions(self) -> dict[str, object]:
        users = [
            {
                "name": name,
                "password_hash": _hashed(self._password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator" if name == _RELAY else "",
            }
            for name in (_RELAY, _FOREIGN)
        ]
        all_rights = {"configure": ".*", "write": ".*", "read": ".*"}
        return {
            "users": users,
            "vhosts": [{"name": "/"}],
            "permissions": [{"user": user["name"], "vhost": "/", **all_rights} for user in users],
        }

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "HOME": str(folder / "home"),
            "LD_LIBRARY_PATH": debian.library_path(installation()),
            "ERL_EPMD_PORT": str(self._name_service_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_ALLOW_INPUT": "1",  # our child is then the Erlang VM itself, without a shell between
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{folder}/feature_flags",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_SCHEMA_DIR": f"{folder}/schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/schema",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        }

    def _path(self) -> str:
        return f"{self.folder}/programs:{_erlang()}/bin:{os.defpath}"

    def _url_for(self, user: str) -> str:
        return f"amqp://{user}:{self._password}@127.0.0.1:{self.port}/"


def installation() -> Path:
    """The folder under which usr/lib/rabbitmq is. Raises Unavailable."""
    if Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
        return Path("/")
    return debian.prefix_of("rabbitmq-server")


def _erlang() -> Path:
    ours = installation() / "usr/lib/erlang"
    return ours if ours.exists() else Path("/usr/lib/erlang")


def _erts() -> Path:
    return next(_erlang().glob("erts-*"))


def _erl() -> str:
    """Erlang's own start script knows only the folder that it was built for."""
    return (
        "#!/bin/sh\n"
        f"export ROOTDIR={_erlang()} BINDIR={_erts()}/bin EMU=beam PROGNAME=erl\n"
        'exec "$BINDIR/erlexec" "$@"\n'
    )


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _hashed(password: str) -> str:
    """A salt of four bytes, then SHA-256 of salt and password: RabbitMQ's form."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
