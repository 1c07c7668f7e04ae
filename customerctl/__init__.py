"""The command line of customerd."""
