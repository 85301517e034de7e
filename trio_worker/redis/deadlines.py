"""Pure. How long clients of Redis wait, in seconds."""

CONNECT_SECONDS = 5.0
# Timeout of a call; the caller repeats it on a new connection. Our scripts take less than a millisecond: a Redis that
# is silent for ten seconds is stopped, unreachable, or writing to a slow disk.
CALL_SECONDS = 10.0
# Timeout of a call if another server may take over (Sentinel, cluster): a failover takes about this long.
CALL_ELSEWHERE_SECONDS = 4.0
# Timeout of a question to one Sentinel or cluster node; there are others to ask.
ASK_SECONDS = 1.0
