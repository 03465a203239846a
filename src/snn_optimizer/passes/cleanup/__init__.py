"""Hygiene: passes that change no bit."""
