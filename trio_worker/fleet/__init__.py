"""Workers' heartbeats, orders and outcomes in Redis, and the figures of all workers together."""
