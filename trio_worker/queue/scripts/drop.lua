-- Drop: delete dead, held or delayed jobs permanently. ARGV: 'dead', 'held' or 'delayed', then ids.
-- Returns the ids that were deleted.
local from = ({dead = DEAD, held = HELD, delayed = DELAYED})[ARGV[1]]
local dropped = {}
begin_writing()
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', from, id) == 1 then
    redis.call('HDEL', BODY, id)
    redis.call('HDEL', RECORD, id)
    redis.call('HDEL', LEASE, id)
    dropped[#dropped + 1] = id
  end
end
if #dropped > 0 and from == DEAD then
  redis.call('HINCRBY', TOTALS, 'dead_dropped', #dropped)
end
return dropped
