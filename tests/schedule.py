"""Which worker runs what: a file stays whole, and files that share what takes seconds to start stay together."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "RabbitMQ that may be killed": (
        "tests/faults/test_broker_rabbitmq.py",
        "tests/faults/test_outages.py",
        "tests/faults/test_rolling_restart.py",
        "tests/faults/test_slow_client.py",
        "tests/integration/test_events_doc.py",
    ),
    "RabbitMQ": (
        "tests/settings/test_server_settings.py",
        "tests/integration/test_fanout.py",
        "tests/integration/test_life_cycle.py",
        "tests/integration/test_rabbitmq.py",
        "tests/integration/test_rabbitmq_publish.py",
        "tests/integration/test_relay.py",
        "tests/contract/test_broker.py",
    ),
    "a node with channels of its own": (
        "tests/e2e/test_sdk_channels.py",
        "tests/e2e/test_sdk_commands.py",
        "tests/e2e/test_sdk_sessions.py",
        "tests/e2e/test_server_api.py",
    ),
    "a node with demo data": (
        "tests/browser/test_connection.py",
        "tests/browser/test_docs.py",
        "tests/browser/test_live_orders.py",
        "tests/browser/test_sign_in.py",
        "tests/e2e/test_api_doc.py",
        "tests/e2e/test_contract.py",
        "tests/e2e/test_sdk_js.py",
        "tests/e2e/test_sdk_python.py",
        "tests/e2e/test_sdk_quickstart.py",
        "tests/e2e/test_verify_action.py",
    ),
}
_OF_FILE = {file: shared for shared, files in TOGETHER.items() for file in files}


class SharedServers(LoadFileScheduling):  # type: ignore[misc]
    """A file that is missing above costs a start more, and nothing else."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _OF_FILE.get(file, file)
