"""The durable queue of operations; one file per operation."""
