-- Renew: extend the leases of jobs in flight. ARGV: lease (ms), new state ('' or 'started'), then id, token of each.
-- Returns the positions (from 1) of the jobs that the worker has lost.
local lease_ms, started = tonumber(ARGV[1]), ARGV[2]
local lost = {}
begin_writing()
note_lease(lease_ms, redis.call('HGET', TOTALS, 'lease_ms'))
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local owner, deliveries, state = read_lease(id)
  if owner ~= token or not redis.call('ZSCORE', LEASED, id) then
    lost[#lost + 1] = (i - 1) / 2
  else
    redis.call('ZADD', LEASED, whole(NOW + lease_ms), id)
    if started ~= '' then
      write_lease(id, token, deliveries, started)
    end
  end
end
return lost
