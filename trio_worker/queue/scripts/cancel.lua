-- Cancel: make delayed and waiting jobs dead letters, which can be retried.
-- ARGV for each: id, record, 'delayed' or 'waiting', original bytes of a waiting one (it is found in the list by them,
-- and gets the id). Returns the ids of the cancelled jobs; those that a worker has claimed meanwhile are left out.
local cancelled = {}
begin_writing()
for i = 1, #ARGV, 4 do
  local id, record, from, bytes = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local is_there
  if from == 'delayed' then
    is_there = redis.call('ZREM', DELAYED, id) == 1
  elseif redis.call('HEXISTS', BODY, id) == 0 then
    is_there = redis.call('LREM', JOBS, 1, bytes) == 1
    if is_there then
      redis.call('HSET', BODY, id, bytes)
      redis.call('HINCRBY', TOTALS, 'popped', 1)
    end
  end
  if is_there then
    redis.call('HSET', RECORD, id, record)
    write_lease(id, '', 0, 'settled')
    redis.call('ZADD', DEAD, whole(NOW), id)
    redis.call('HINCRBY', TOTALS, 'bury', 1)
    cancelled[#cancelled + 1] = id
  end
end
return cancelled
