"""Passes that find neurons and time loops in what frameworks export."""
