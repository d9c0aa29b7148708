"""What realtime counts: per batch or per publication, never per delivery (a counter costs half a microsecond)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds. Fine where the goal lies (some milliseconds), coarse up to an outage that was sat out.
LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RealtimeMetrics:
    """Names and labels are documented in docs/operations.md."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"orderwire_{name}", text, labels, registry=registry)

        self.connections = Gauge("orderwire_connections", "Open client connections.", registry=registry)
        self.subscriptions = Gauge("orderwire_subscriptions", "Live subscriptions.", registry=registry)
        self.channels = Gauge("orderwire_channels", "Channels with a local subscriber.", registry=registry)
        self.recent_bytes = Gauge(
            "orderwire_recent_bytes", "Recent publications that are kept in memory.", registry=registry
        )
        self.closes = counter("closes", "Connections closed by the server, by close code.", "code")
        self.errors = counter("command_errors", "Commands answered with an error, by error code.", "code")
        self.publications = counter("publications", "Publications that reached this node's hub in order.")
        self.deliveries = counter("deliveries", "Publications written to clients.")
        self.commit_to_client = Histogram(
            "orderwire_commit_to_client_seconds",
            "From an event's time to its hand-over to the sockets.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.gaps_repaired = counter("gaps_repaired", "Missed ranges that the hub read from the stream.")
        self.resets = counter("stream_resets", "Times that a channel's clients were told to reload.")
        self.drops = counter("drops", "Things dropped on purpose, by reason.", "reason")
        self.recoveries = counter("recoveries", "Recoveries asked for by clients, by outcome.", "outcome")
        self.relayed = counter("relayed_events", "Outbox events that the broker confirmed.")
        self.relay_leads = Gauge("orderwire_relay_leads", "1 while this node is the relay.", registry=registry)
        self.appended = counter("appended", "Publications appended to streams by the fan-out.")
        self.dead_letters = counter("dead_letters", "Events put aside, by reason.", "reason")
        self.bus_lost = counter("bus_messages_lost", "Bus messages that could not be sent.")
        self.reconnects = counter("reconnects", "Connections to a part established again.", "part")
