-- Revive: retry dead or held jobs: make them delayed; or make delayed ones due at another time.
-- ARGV: 'dead', 'held' or 'delayed', then id, delay (ms), record of each.
-- Returns the ids of the retried jobs; those that were no longer there are left out.
local from = ({dead = DEAD, held = HELD, delayed = DELAYED})[ARGV[1]]
local back = {}
begin_writing()
for i = 2, #ARGV, 3 do
  local id, delay_ms, record = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if redis.call('ZREM', from, id) == 1 then
    redis.call('HSET', RECORD, id, record)
    write_lease(id, '', 0, 'settled')
    redis.call('ZADD', DELAYED, whole(NOW + delay_ms), id)
    back[#back + 1] = id
  end
end
if #back > 0 and from == DEAD then
  redis.call('HINCRBY', TOTALS, 'dead_retried', #back)
end
return back
