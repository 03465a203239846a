"""Passes that change what the network consists of."""
