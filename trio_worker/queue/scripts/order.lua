-- Order: tell workers something, each hears it with its next heartbeat, after what it was told before.
-- ARGV: the order, then names of workers.
-- Returns the names that are known; a worker that is not known, or gone, is told nothing. Nor is one with so many orders
-- unheard that it cannot be alive.
local MOST_UNHEARD_BYTES = 4096
local told = {}
begin_writing()
for i = 2, #ARGV do
  if redis.call('ZSCORE', WORKERS, ARGV[i]) then
    local unheard = redis.call('HGET', ORDERS, ARGV[i]) or ''
    if #unheard < MOST_UNHEARD_BYTES then
      redis.call('HSET', ORDERS, ARGV[i], unheard == '' and ARGV[1] or unheard .. '\n' .. ARGV[1])
      told[#told + 1] = ARGV[i]
    end
  end
end
return told
