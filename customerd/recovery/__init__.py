"""Bringing channels back: walking them forward, finding them on the chain, backups."""
