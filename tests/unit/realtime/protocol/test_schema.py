import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[4]
SCHEMA = "realtime/protocol/client.proto"


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
        SCHEMA,
    ]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["client_pb2.py", "client_pb2.pyi"])
def test_the_messages_are_what_make_proto_makes_of_the_schema(generated: Path, name: str) -> None:
    path = Path(SCHEMA).parent / name
    assert (CHECKOUT / path).read_text() == (generated / path).read_text()
