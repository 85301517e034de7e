-- Settle: apply verdicts to jobs in flight. ARGV for each: id, and 'token|what|delay (ms)|doubt|record' (doubt is 1 if
-- it is not known whether the mail was delivered; an empty record keeps the old one). That is one text, because each
-- argument costs time.
-- Returns for each: 'settled', 'repeated' (this settlement was applied before), 'fenced' (another worker holds the
-- job), 'gone' (the job is done, or has never been claimed). The token fences, not the end of the lease: a late
-- settlement still counts if no other worker has claimed the job.
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
