"""Brings one mail over one of a few kept connections to a relay, and says what became of it."""
