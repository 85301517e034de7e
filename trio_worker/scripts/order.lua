-- Order: tell workers something, each hears it with its next heartbeat. ARGV: the order, then names of workers.
-- Returns the names that are known; a worker that is not known, or gone, is told nothing.
local told = {}
begin_writing()
for i = 2, #ARGV do
  if redis.call('ZSCORE', WORKERS, ARGV[i]) then
    redis.call('HSET', ORDERS, ARGV[i], ARGV[1])
    told[#told + 1] = ARGV[i]
  end
end
return told
