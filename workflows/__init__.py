"""Workflows: they orchestrate, deterministically, and do no I/O of their own."""
