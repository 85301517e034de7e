"""Turns events into figures, words, lines and pages; changes nothing."""
