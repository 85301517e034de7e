"""Every state of a job in Redis and every move between them; the table of the keys stands here alone."""
