"""Draws a snapshot and turns keys into actions; awaits nothing but the terminal."""
