-- Claim: take jobs under a lease: first those with an expired lease, then delayed ones that are due and new ones, half
-- and half as long as there are both. So neither a backlog of retries nor a burst of pushes makes the others wait.
-- ARGV: token, lease (ms), limit, most deliveries, most bytes of a job, prefix of new ids, most dead letters (0: any),
--       1 if the worker is idle: it has no job in flight.
-- Returns {state, now, jobs {id, bytes, record, source, deliveries, place}, next event (ms from now, -1 none),
--          waiting, popped before this call, recovered, crashed, held, too large, pause, suspects,
--          ever popped before this call: jobs that were given back to the list since stay in this number,
--          generation, see lost.lua}.
-- A job is a suspect after SUSPECT_AT deliveries in a row without a settlement: it may crash its workers. Only an idle
-- worker gets it, and no other job with it, so that no other job is blamed.
local token, lease_ms, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_deliveries, most_bytes, prefix, most_dead = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local is_idle = ARGV[8] == '1'
local SUSPECT_AT = 2
local jobs, recovered, crashed, held, too_large, suspects = {}, 0, 0, 0, 0, 0
local totals = redis.call('HMGET', TOTALS, 'popped', 'recalled', 'lease_ms', 'generation')
local popped = tonumber(totals[1] or '0')
local ever_popped = popped + tonumber(totals[2] or '0')

local function reply(state, pause)
  if recovered > 0 then
    -- The worker whose lease expired may have sent the mail.
    redis.call('HINCRBY', TOTALS, 'uncertain', recovered)
  end
  local next_ms = -1
  for _, key in ipairs({DELAYED, LEASED}) do
    local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if head[2] then
      local ahead = math.max(0, math.ceil(tonumber(head[2]) - NOW))
      if next_ms < 0 or ahead < next_ms then
        next_ms = ahead
      end
    end
  end
  return {state, whole(NOW), jobs, next_ms, redis.call('LLEN', JOBS), popped, recovered, crashed, held, too_large, pause,
    suspects, ever_popped, totals[4] or ''}
end

local pause = redis.call('GET', PAUSE)
if not pause and most_dead > 0 and redis.call('ZCARD', DEAD) >= most_dead then
  pause = 'the dead letters have reached queue.dead_limit'
end
if pause then
  return reply('paused', pause)
end
begin_writing()

-- No lease ends later than now and the longest length in use. One that does was given before Redis' clock was set back,
-- and would keep the job of a dead worker for as long; a live worker renews it in time.
local longest_ms = note_lease(lease_ms, totals[3])
local last = redis.call('ZRANGE', LEASED, -1, -1, 'WITHSCORES')
if last[2] and tonumber(last[2]) > NOW + longest_ms then
  local late = redis.call('ZRANGEBYSCORE', LEASED, '(' .. whole(NOW + longest_ms), '+inf', 'LIMIT', 0, 200)
  for _, id in ipairs(late) do
    redis.call('ZADD', LEASED, whole(NOW + longest_ms), id)
  end
end

local function give(id, bytes, source, deliveries, place)
  redis.call('ZADD', LEASED, whole(NOW + lease_ms), id)
  write_lease(id, token, deliveries, '')
  jobs[#jobs + 1] = {id, bytes, redis.call('HGET', RECORD, id) or '', source, deliveries, place}
end

local function set_aside(key, id, deliveries, reason)
  redis.call('ZREM', LEASED, id)
  redis.call('ZREM', DELAYED, id)
  redis.call('ZADD', key, whole(NOW), id)
  write_lease(id, '', deliveries, reason)
end

local function give_again(id, source)
  local _, deliveries, state = read_lease(id)
  local bytes = redis.call('HGET', BODY, id)
  if not bytes then
    -- Written by another program, or half deleted. There is nothing to send, and it must not block other jobs.
    redis.call('HSET', BODY, id, '')
    set_aside(DEAD, id, deliveries, 'no_bytes')
    crashed = crashed + 1
  elseif source == 'recovered' and state == 'started' then
    set_aside(HELD, id, deliveries, 'uncertain')
    held = held + 1
  elseif deliveries >= most_deliveries then
    set_aside(DEAD, id, deliveries, 'crashed')
    crashed = crashed + 1
  else
    redis.call('ZREM', DELAYED, id)
    give(id, bytes, source, deliveries + 1, -1)
  end
end

local function is_suspect(id)
  local _, deliveries, state = read_lease(id)
  return deliveries >= SUSPECT_AT and deliveries < most_deliveries and state ~= 'started'
    and redis.call('HEXISTS', BODY, id) == 1
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASED, '-inf', whole(NOW), 'LIMIT', 0, limit)) do
  if not is_suspect(id) then
    recovered = recovered + 1
    give_again(id, 'recovered')
  elseif is_idle and #jobs == 0 then
    suspects, recovered = 1, recovered + 1
    give_again(id, 'recovered')
    return reply('open', '')
  else
    suspects = suspects + 1
  end
end
if suspects > 0 then
  -- Suspects go first: the worker finishes its jobs in flight to become idle.
  return reply('open', '')
end
local room = limit - #jobs
if room > 0 then
  local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', whole(NOW), 'LIMIT', 0, room)
  local waiting, share = 0, room
  if #due > 0 then
    waiting = redis.call('LLEN', JOBS)
  end
  if waiting > 0 then
    share = math.floor(room / 2)
    -- The odd place goes to both in turns, or a worker with one consumer would take from one side alone.
    if room % 2 == 1 and redis.call('HINCRBY', TOTALS, 'turns', 1) % 2 == 1 then
      share = share + 1
    end
    share = math.max(share, room - waiting)
  end
  for place = 1, math.min(share, #due) do
    give_again(due[place], 'due')
  end
end
local taken = 0
-- Elements that are too large do not count as jobs; with the second limit a list full of them does not block Redis.
while #jobs < limit and taken < 2 * limit do
  local bytes = redis.call('LPOP', JOBS)
  if not bytes then
    break
  end
  if bytes ~= WAKE then
    taken = taken + 1
    local id = prefix .. string.format('%03d', taken)
    redis.call('HSET', BODY, id, bytes)
    if #bytes > most_bytes then
      set_aside(DEAD, id, 1, 'too_large')
      too_large = too_large + 1
    else
      give(id, bytes, 'fresh', 1, popped + taken)
    end
  end
end
if taken > 0 then
  redis.call('HINCRBY', TOTALS, 'popped', taken)
end
return reply('open', '')
