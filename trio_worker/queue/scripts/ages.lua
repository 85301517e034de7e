-- Ages: return evenly spaced elements of the producers' list, from which the caller reads their ages; writes nothing.
-- ARGV: most bytes to return, then pairs: a length, and the number of samples of a list up to this length.
-- A longer list is not sampled: Redis walks a list to reach an element in its middle.
-- Returns {waiting, {place (0 is the head), bytes ('' if they would be too many) ...}}.
local room, waiting, wanted = tonumber(ARGV[1]), redis.call('LLEN', JOBS), 0
for i = #ARGV - 1, 2, -2 do
  if waiting <= tonumber(ARGV[i]) then
    wanted = math.min(waiting, tonumber(ARGV[i + 1]))
  end
end
-- Reading elements that are too large to return costs time too. After this many bytes the rest is not read.
local most_fetched = 8 * room
local found = {}
for number = 0, wanted - 1 do
  local place = wanted > 1 and math.floor(number * (waiting - 1) / (wanted - 1) + 0.5) or 0
  local bytes = most_fetched > 0 and redis.call('LINDEX', JOBS, place) or ''
  most_fetched = most_fetched - #bytes
  if #bytes > room then
    bytes = ''
  end
  room = room - #bytes
  found[#found + 1] = place
  found[#found + 1] = bytes
end
return {waiting, found}
