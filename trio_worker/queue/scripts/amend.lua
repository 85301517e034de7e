-- Amend: retry one dead letter with other bytes.
-- ARGV: id, bytes, record. Returns 1, or 0 if the job is not dead any more: then nothing is changed.
local id = ARGV[1]
begin_writing()
if redis.call('ZREM', DEAD, id) == 0 then
  return 0
end
redis.call('HSET', BODY, id, ARGV[2])
redis.call('HSET', RECORD, id, ARGV[3])
write_lease(id, '', 0, 'settled')
redis.call('ZADD', DELAYED, whole(NOW), id)
redis.call('HINCRBY', TOTALS, 'dead_retried', 1)
return 1
