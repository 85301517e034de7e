-- Order: send an order to workers; each gets it with its next heartbeat, after earlier orders.
-- ARGV: the order, then names of workers.
-- Returns the names of the workers that it was sent to: those that are known and have few orders waiting. A worker with
-- more cannot be alive.
local MOST_WAITING_BYTES = 4096
local sent = {}
begin_writing()
for i = 2, #ARGV do
  if redis.call('ZSCORE', WORKERS, ARGV[i]) then
    local waiting = redis.call('HGET', ORDERS, ARGV[i]) or ''
    if #waiting < MOST_WAITING_BYTES then
      redis.call('HSET', ORDERS, ARGV[i], waiting == '' and ARGV[1] or waiting .. '\n' .. ARGV[1])
      sent[#sent + 1] = ARGV[i]
    end
  end
end
return sent
