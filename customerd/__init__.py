"""The customer daemon: durable operations, chain watcher, owner RPC."""

VERSION = "0.1.0"
