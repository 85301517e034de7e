-- Pause: pause the queue, or end its pause; counts the operator's action. A full Redis must be no hindrance.
-- ARGV: name of the action's counter, reason, length (ms; 0: until it is ended; -1: end it).
-- Returns 1, or 0 if there was no pause to end.
begin_writing()
local reason, length_ms, changed = ARGV[2], tonumber(ARGV[3]), 1
if length_ms < 0 then
  changed = redis.call('DEL', PAUSE)
elseif length_ms > 0 then
  redis.call('SET', PAUSE, reason, 'PX', ARGV[3])
else
  redis.call('SET', PAUSE, reason)
end
if changed == 1 then
  redis.call('HINCRBY', TOTALS, ARGV[1], 1)
end
return changed
