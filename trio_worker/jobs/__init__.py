"""Jobs as producers write them, read strictly; knows no mail and no Redis."""
