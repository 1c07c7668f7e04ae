"""The command line of customerd: starts fast, imports only what a command needs."""

from __future__ import annotations

VERSION = "0.1.0"
