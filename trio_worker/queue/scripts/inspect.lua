-- Inspect: count the jobs in each state at one moment; O(log n), writes nothing.
-- Returns {now, waiting, leased, delayed, held, dead, bodies, records, leases, due delayed jobs, expired leases, pause,
--          lowest score of leased, lowest score of delayed, rest of the pause (ms), all totals by name}.
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
