"""Turns events into figures, words, log lines and HTTP pages; changes nothing."""
