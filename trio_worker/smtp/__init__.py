"""Sends mails to the relay over a small pool of connections, and returns the outcome of each."""
