-- Rebury: undo a retry: make delayed jobs dead or held again, or due at their old time. ARGV: 'dead', 'held' or
-- 'delayed', then id, time at which the job became so or was due (ms), record of each.
-- Returns the ids that were put back; jobs that a worker has claimed are left out.
local to = ({dead = DEAD, held = HELD, delayed = DELAYED})[ARGV[1]]
local back = {}
begin_writing()
for i = 2, #ARGV, 3 do
  local id, at, record = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('ZREM', DELAYED, id) == 1 then
    redis.call('ZADD', to, at, id)
    redis.call('HSET', RECORD, id, record)
    write_lease(id, '', 0, 'settled')
    back[#back + 1] = id
  end
end
return back
