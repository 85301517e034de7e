"""Makes the octets of a mail from a job; knows nothing of how it travels."""
