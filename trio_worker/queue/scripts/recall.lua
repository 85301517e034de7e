-- Recall: put unfinished jobs back on the producers' list, with their original bytes, and remove their ids.
-- ARGV: 1 if held jobs may go, 1 if dead ones may, then ids, the newest first: each goes to the head of the list, so
-- that they keep their order, even if this is interrupted and repeated.
-- Returns for each id: 'back', 'live' (a worker has it now), 'kept' (held or dead, and may not go), or 'gone'.
local may_held, may_dead = ARGV[1] == '1', ARGV[2] == '1'
local answers, back, dead = {}, 0, 0
begin_writing()
for i = 3, #ARGV do
  local id = ARGV[i]
  local bytes, until_ms = redis.call('HGET', BODY, id), redis.call('ZSCORE', LEASED, id)
  local is_held, is_dead = redis.call('ZSCORE', HELD, id), redis.call('ZSCORE', DEAD, id)
  local answer = 'back'
  if not bytes then
    answer = 'gone'
  elseif until_ms and tonumber(until_ms) > NOW then
    answer = 'live'
  elseif (is_held and not may_held) or (is_dead and not may_dead) then
    answer = 'kept'
  else
    if until_ms then
      -- Its worker may have sent the mail before its lease expired.
      redis.call('HINCRBY', TOTALS, 'uncertain', 1)
    end
    if is_dead then
      dead = dead + 1
    end
    for _, key in ipairs({LEASED, DELAYED, HELD, DEAD}) do
      redis.call('ZREM', key, id)
    end
    for _, key in ipairs({BODY, RECORD, LEASE}) do
      redis.call('HDEL', key, id)
    end
    redis.call('LPUSH', JOBS, bytes)
    back = back + 1
  end
  answers[#answers + 1] = answer
end
if back > 0 then
  redis.call('HINCRBY', TOTALS, 'popped', -back)
  -- A total that falls otherwise means that Redis has lost data.
  redis.call('HINCRBY', TOTALS, 'recalled', back)
end
if dead > 0 then
  redis.call('HINCRBY', TOTALS, 'dead_released', dead)
end
return answers
