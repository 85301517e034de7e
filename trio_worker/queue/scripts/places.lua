-- Places: the states in which each id is, all read at one moment. ARGV: ids. Writes nothing.
-- Returns for each: {names of the states with spaces between, has bytes, has lease entry}.
local found = {}
for _, id in ipairs(ARGV) do
  local states = {}
  for name, key in pairs({leased = LEASED, delayed = DELAYED, held = HELD, dead = DEAD}) do
    if redis.call('ZSCORE', key, id) then
      states[#states + 1] = name
    end
  end
  table.sort(states)
  found[#found + 1] = {
    table.concat(states, ' '), redis.call('HEXISTS', BODY, id), redis.call('HEXISTS', LEASE, id)
  }
end
return found
