"""A mail worker: JSON jobs from a Redis list, sent over a small pool of persistent SMTP connections."""

__version__ = "0.2.0"
