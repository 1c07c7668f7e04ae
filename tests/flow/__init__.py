"""Flows between real processes."""
