-- Beat: keep one worker's heartbeat, date the queue's totals, and hear what somebody wants of this worker.
-- ARGV: name of the worker, heartbeat, most silence (ms) after which a worker is forgotten, 1 if it leaves for good;
--       then, if it has drained: milliseconds that this took, and the names under which they are counted and summed up.
-- Returns {now, orders, one a line ('' for none), 1 if somebody watches outcomes}.
local name, heartbeat, silence_ms, leaves = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
begin_writing()

local function forget(worker)
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', HEARTBEATS, worker)
  redis.call('HDEL', ORDERS, worker)
end

-- At most so many at once: a script must be short, and the next heartbeat goes on.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', whole(NOW - silence_ms), 'LIMIT', 0, 20)) do
  forget(gone)
end

local orders = redis.call('HGET', ORDERS, name) or ''
if leaves then
  forget(name)
  if ARGV[5] then
    redis.call('HINCRBY', TOTALS, ARGV[6], 1)
    redis.call('HINCRBY', TOTALS, ARGV[7], ARGV[5])
  end
else
  redis.call('HDEL', ORDERS, name)
  redis.call('ZADD', WORKERS, whole(NOW), name)
  redis.call('HSET', HEARTBEATS, name, heartbeat)
end

-- A ring of one day: the totals as they stood when the minute was last seen. What a minute brought is the difference
-- to the one before, so no settlement has to count it.
local totals = redis.call('HMGET', TOTALS, 'popped', 'done', 'delay', 'release', 'hold', 'bury', 'uncertain')
local minute = math.floor(NOW / 60000)
local words = {whole(minute)}
for i = 1, 7 do
  words[#words + 1] = totals[i] or '0'
end
words[#words + 1] = redis.call('LLEN', JOBS)
words[#words + 1] = redis.call('ZCARD', DELAYED)
words[#words + 1] = redis.call('ZCARD', DEAD)
redis.call('HSET', MINUTES, whole(minute % 1440), table.concat(words, ' '))
-- And one of two minutes, a mark every two seconds: when so many jobs had been pushed, which dates the fresh ones.
local pushed = tonumber(totals[1] or '0') + redis.call('LLEN', JOBS)
redis.call('HSET', MINUTES, 's' .. whole(math.floor(NOW / 2000) % 60), whole(NOW) .. ' ' .. whole(pushed))
return {whole(NOW), orders, redis.call('EXISTS', WATCH)}
