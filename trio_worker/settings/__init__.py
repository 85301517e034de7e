"""Reads, checks, explains and writes out every key; knows every option record."""
