"""Reads, checks, explains and writes every key; each is declared beside the code that uses it."""
