"""What the layers ask of each other, each port with its value types and its guarantee.

`domain` is what the domain asks of storage; `streams`, `outbox` and `broker` are what realtime asks of storage and of
the broker. They stand here because realtime and storage never know each other.
"""
