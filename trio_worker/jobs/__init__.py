"""What a producer may say, read strictly; knows no mail and no Redis."""
