"""Draws a snapshot and turns keys into actions; waits only for the terminal."""
