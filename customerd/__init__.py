"""The customer daemon: durable operations, chain watcher, owner RPC."""
