-- Inspect: the counts of every state in one consistent cut; O(log n), writes nothing.
-- Returns {now, waiting, leased, delayed, held, dead, bodies, records, leases, due, run out, popped, pause,
--          score of the oldest due, score of the next delayed, pause's rest (ms), all totals since the queue began, by name}.
local function head(key)
  return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or ''
end
return {
  whole(NOW),
  redis.call('LLEN', JOBS),
  redis.call('ZCARD', LEASED),
  redis.call('ZCARD', DELAYED),
  redis.call('ZCARD', HELD),
  redis.call('ZCARD', DEAD),
  redis.call('HLEN', BODY),
  redis.call('HLEN', RECORD),
  redis.call('HLEN', LEASE),
  redis.call('ZCOUNT', DELAYED, '-inf', whole(NOW)),
  redis.call('ZCOUNT', LEASED, '-inf', whole(NOW)),
  redis.call('GET', PAUSE) or '',
  head(LEASED),
  head(DELAYED),
  redis.call('PTTL', PAUSE),
  redis.call('HGETALL', TOTALS),
}
