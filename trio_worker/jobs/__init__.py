"""The contract for producers: decodes jobs strictly; knows no mail and no Redis."""
