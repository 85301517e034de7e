-- Lost: note that Redis has lost data, once for all workers that saw it.
-- ARGV: sign, how long it is shown (ms), number of what was lost, then by the sign:
--   totals: the generation in which the worker saw it, a new generation, jobs that came from the list in the claim that
--           showed it. If another worker has noted a loss since, the generation is another one, and nothing is counted.
--   evicted: the run id of the server, its evicted keys before and now, which other workers may have noted as well.
-- Returns {how many were lost that nobody had noted, how many of them may be sent again, jobs ever popped, generation}.
local sign, shown_ms, lost, again = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0
begin_writing()
local totals = redis.call('HMGET', TOTALS, 'popped', 'recalled', 'generation')
local ever_popped, generation = tonumber(totals[1] or '0') + tonumber(totals[2] or '0'), totals[3] or ''
if sign == 'totals' then
  if generation == ARGV[4] then
    generation = ARGV[5]
    redis.call('HSET', TOTALS, 'generation', generation)
    -- Of what is in the list, or was a moment ago, so many may have been sent before.
    again = math.min(lost, redis.call('LLEN', JOBS) + tonumber(ARGV[6]))
    if again > 0 then
      redis.call('HINCRBY', TOTALS, 'uncertain', again)
    end
  else
    lost = 0
  end
elseif sign == 'evicted' then
  local run_id, noted = string.match(redis.call('HGET', LOSSES, 'evicted_keys') or '', '^(%S+) (%d+)$')
  local before, now = tonumber(ARGV[5]), tonumber(ARGV[6])
  if run_id == ARGV[4] then
    before = math.max(before, tonumber(noted))
  end
  lost = math.max(0, now - before)
  if lost > 0 then
    redis.call('HSET', LOSSES, 'evicted_keys', ARGV[4] .. ' ' .. whole(now))
  end
end
if lost > 0 then
  local at, sum = string.match(redis.call('HGET', LOSSES, sign) or '', '^(%d+) (%d+)$')
  local before = at and NOW - tonumber(at) < shown_ms and tonumber(sum) or 0
  redis.call('HSET', LOSSES, sign, whole(NOW) .. ' ' .. whole(before + lost))
  redis.call('PEXPIRE', LOSSES, shown_ms)
end
return {lost, again, ever_popped, generation}
