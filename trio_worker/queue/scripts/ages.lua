-- Ages: evenly spaced elements of the producers' list, for whoever dates them; writes nothing.
-- ARGV: most bytes of all that are sent, then pairs: a length, and how many elements of a list up to that are looked at.
-- A longer list is not looked at: an element in its middle is found by walking to it.
-- Returns {waiting, {place (0 is the head), bytes ('' for what would be too much) ...}}.
local room, waiting, wanted = tonumber(ARGV[1]), redis.call('LLEN', JOBS), 0
for i = #ARGV - 1, 2, -2 do
  if waiting <= tonumber(ARGV[i]) then
    wanted = math.min(waiting, tonumber(ARGV[i + 1]))
  end
end
-- To fetch what is too large to be sent costs time as well: so much of it, and the rest goes undated.
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
