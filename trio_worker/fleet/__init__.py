"""Heartbeats, orders and outcomes of workers in Redis, and the figures of all workers together."""
