"""Makes the octets of a mail from a job; knows nothing about sending it."""
