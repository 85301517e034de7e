-- Wake: let the workers that wait for a push look for jobs. It is run twice in one round trip: ARGV[1] is 'push', then
-- 'take'. Redis serves blocked waits after each script, so it wakes them between the two; other clients see nothing.
-- Nobody waits where the list has elements. An element that stays, because the second call did not come, is no job for
-- the claim.
begin_writing()
if ARGV[1] == 'push' and redis.call('LLEN', JOBS) == 0 then
  redis.call('LPUSH', JOBS, WAKE)
elseif ARGV[1] == 'take' and redis.call('LINDEX', JOBS, 0) == WAKE then
  redis.call('LPOP', JOBS)
end
return 0
