-- Settle: say what became of jobs in hand. ARGV for each: id, and 'token|what|delay (ms)|doubt|record' (doubt is 1 if its
-- mail may have been delivered without anybody knowing; an empty record leaves the old one). Words travel one by one, at a
-- price each: so few of them.
-- Returns for each: 'settled', 'repeated' (this very settlement was applied before), 'fenced' (somebody else holds the
-- job), 'gone' (nobody does: done before, or never ours). The token fences, not the deadline: a late settlement of a
-- job that nobody else took still counts.
local answers, uncertain, counts = {}, 0, {}
begin_writing()
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local token, what, delay_ms, doubt, record = string.match(ARGV[i + 1], '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
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
    counts[what] = (counts[what] or 0) + 1
    uncertain = uncertain + tonumber(doubt)
    if what == 'done' then
      redis.call('HDEL', BODY, id)
      redis.call('HDEL', RECORD, id)
      redis.call('HDEL', LEASE, id)
    else
      if record ~= '' then
        redis.call('HSET', RECORD, id, record)
      end
      write_lease(id, token, 0, 'settled')
      if what == 'delay' or what == 'release' then
        redis.call('ZADD', DELAYED, whole(NOW + tonumber(delay_ms)), id)
      elseif what == 'hold' then
        redis.call('ZADD', HELD, whole(NOW), id)
      else
        redis.call('ZADD', DEAD, whole(NOW), id)
      end
    end
  end
  answers[#answers + 1] = answer
end
for what, count in pairs(counts) do
  redis.call('HINCRBY', TOTALS, what, count)
end
if uncertain > 0 then
  redis.call('HINCRBY', TOTALS, 'uncertain', uncertain)
end
return answers
