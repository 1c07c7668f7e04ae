"""The escrow contract: artefact, calls, events, typed data; no I/O."""
