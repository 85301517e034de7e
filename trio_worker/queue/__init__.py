"""Every state of a job in Redis and every move between states; holds the only table of the keys."""
