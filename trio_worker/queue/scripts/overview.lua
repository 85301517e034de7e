-- Overview: read the heartbeats of all workers and the totals of past minutes; writes nothing.
-- ARGV: number of minutes (at most 1440), most bytes of the list's head (a larger one is returned as '').
-- Returns {now, workers {name, time of the last heartbeat, heartbeat}, minutes {as beat wrote them}, the list's head,
--          marks of the last two minutes {as beat wrote them}, losses {as lost wrote them}}.
local wanted, most_bytes = math.min(tonumber(ARGV[1]), 1440), tonumber(ARGV[2])
local workers, minutes = {}, {}
-- At most 1000 workers: more do not fit on a screen, and a script must be short.
local known = redis.call('ZRANGE', WORKERS, 0, 999, 'WITHSCORES')
for i = 1, #known, 2 do
  workers[#workers + 1] = {known[i], known[i + 1], redis.call('HGET', HEARTBEATS, known[i]) or ''}
end
local minute = math.floor(NOW / 60000)
local fields = {}
for ago = wanted - 1, 0, -1 do
  fields[#fields + 1] = whole((minute - ago) % 1440)
end
if #fields > 0 then
  for _, sample in ipairs(redis.call('HMGET', MINUTES, unpack(fields))) do
    if sample then
      minutes[#minutes + 1] = sample
    end
  end
end
local slots, marks = {}, {}
for slot = 0, 59 do
  slots[#slots + 1] = 's' .. slot
end
for _, mark in ipairs(redis.call('HMGET', MINUTES, unpack(slots))) do
  if mark then
    marks[#marks + 1] = mark
  end
end
local head = redis.call('LINDEX', JOBS, 0) or ''
if #head > most_bytes then
  head = ''
end
return {whole(NOW), workers, minutes, head, marks, redis.call('HGETALL', LOSSES)}
