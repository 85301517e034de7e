-- Hasten: make delayed jobs due now. ARGV: ids. Returns those that were delayed.
local hastened = {}
begin_writing()
for _, id in ipairs(ARGV) do
  if redis.call('ZSCORE', DELAYED, id) then
    redis.call('ZADD', DELAYED, whole(NOW), id)
    hastened[#hastened + 1] = id
  end
end
return hastened
