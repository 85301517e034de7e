-- Beat: store one worker's heartbeat and the totals of this minute, and return the orders to this worker.
-- ARGV: name of the worker, heartbeat, silence (ms) after which a worker is removed, 1 if this is its last heartbeat;
--       then, if it has drained: duration of the drain (ms), names of the counter and of the sum of drains.
-- Returns {now, orders, one a line ('' for none), 1 while a program watches outcomes, jobs ever popped, generation (see
--          lost.lua)}.
local name, heartbeat, silence_ms, leaves = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
begin_writing()

local function forget(worker)
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', HEARTBEATS, worker)
  redis.call('HDEL', ORDERS, worker)
end

-- At most 20 at once: a script must be short, and the next heartbeat removes more.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', whole(NOW - silence_ms), 'LIMIT', 0, 20)) do
  forget(gone)
end
-- A heartbeat from the future was sent before Redis' clock was set back. A live worker sends the next one soon; the others
-- count as lost, and are removed in a while.
for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '(' .. whole(NOW + silence_ms), '+inf', 'LIMIT', 0, 20)) do
  redis.call('ZADD', WORKERS, whole(NOW - math.floor(silence_ms / 2)), ahead)
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

-- Ring buffer of one day: the totals at the last heartbeat of each minute. Readers subtract those of the minute before,
-- so no settlement has to count by the minute.
local totals = redis.call('HMGET', TOTALS, 'popped', 'done', 'delay', 'release', 'hold', 'bury', 'uncertain', 'recalled',
  'generation')
local minute = math.floor(NOW / 60000)
local sample = {whole(minute)}
for i = 1, 7 do
  sample[#sample + 1] = totals[i] or '0'
end
sample[#sample + 1] = redis.call('LLEN', JOBS)
sample[#sample + 1] = redis.call('ZCARD', DELAYED)
sample[#sample + 1] = redis.call('ZCARD', DEAD)
redis.call('HSET', MINUTES, whole(minute % 1440), table.concat(sample, ' '))
-- Ring buffer of two minutes, a mark every two seconds: the number of jobs pushed so far, which dates new jobs.
local pushed = tonumber(totals[1] or '0') + redis.call('LLEN', JOBS)
redis.call('HSET', MINUTES, 's' .. whole(math.floor(NOW / 2000) % 60), whole(NOW) .. ' ' .. whole(pushed))
local ever_popped = tonumber(totals[1] or '0') + tonumber(totals[8] or '0')
return {whole(NOW), orders, redis.call('EXISTS', WATCH), ever_popped, totals[9] or ''}
