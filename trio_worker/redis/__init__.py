"""Calls to the right Redis, each answered by a value or by `Unavailable`; starts one where there is none."""
