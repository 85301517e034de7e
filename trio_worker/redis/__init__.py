"""Calls the right Redis, and returns a value or `Unavailable`; starts an embedded server for a worker."""
