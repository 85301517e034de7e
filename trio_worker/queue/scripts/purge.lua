-- Purge: delete jobs from the head of the producers' list, unread. ARGV: most jobs in this call.
-- Returns how many were deleted. They count as popped, so that the total of pushed jobs never falls.
begin_writing()
local gone = redis.call('LPOP', JOBS, ARGV[1])
local count = gone and #gone or 0
if count > 0 then
  redis.call('HINCRBY', TOTALS, 'popped', count)
end
return count
