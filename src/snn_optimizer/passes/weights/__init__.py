"""Passes that change weights."""
