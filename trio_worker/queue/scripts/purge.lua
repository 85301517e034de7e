-- Purge: delete jobs from the head of the producers' list, unread. ARGV: most of them in this call.
-- Returns how many were deleted. They count as taken, so that totals never go back.
begin_writing()
local gone = redis.call('LPOP', JOBS, ARGV[1])
local count = gone and #gone or 0
if count > 0 then
  redis.call('HINCRBY', TOTALS, 'popped', count)
end
return count
