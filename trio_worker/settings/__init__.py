"""Reads, checks, explains and writes every key; knows every option record."""
