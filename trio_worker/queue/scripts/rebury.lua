-- Rebury: take back a retry: put jobs that wait for their time where they were. ARGV: 'dead' or 'held', then id, time
-- on the shelf (ms), record of each. Returns the ids that were put back; what was sent or is being sent is left out.
local to = ARGV[1] == 'held' and HELD or DEAD
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
