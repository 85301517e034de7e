-- Settle: say what became of jobs in hand. ARGV for each: id, token, what, delay (ms), record ('' leaves it as it is).
-- Returns for each: 'settled', 'repeated' (this very settlement was applied before), 'fenced' (somebody else holds the
-- job), 'gone' (nobody does: done before, or never ours). The token fences, not the deadline: a late settlement of a
-- job that nobody else took still counts.
local answers = {}
begin_writing()
for i = 1, #ARGV, 5 do
  local id, token, what, delay_ms, record = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4]
  local owner, _, state = read_lease(id)
  local answer = 'settled'
  if not owner then
    answer = 'gone'
  elseif owner ~= token then
    answer = 'fenced'
  elseif state == 'settled' then
    answer = 'repeated'
  else
    redis.call('ZREM', LEASED, id)
    if what == 'done' then
      redis.call('HDEL', BODY, id)
      redis.call('HDEL', RECORD, id)
      redis.call('HDEL', LEASE, id)
    else
      if record ~= '' then
        redis.call('HSET', RECORD, id, record)
      end
      write_lease(id, token, 0, 'settled')
      if what == 'delay' then
        redis.call('ZADD', DELAYED, whole(NOW + delay_ms), id)
      elseif what == 'hold' then
        redis.call('ZADD', HELD, whole(NOW), id)
      else
        redis.call('ZADD', DEAD, whole(NOW), id)
      end
    end
  end
  answers[#answers + 1] = answer
end
return answers
