"""Passes that choose how a network is carried out."""
