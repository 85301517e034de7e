-- Answer: keep what came of an order for whoever gave it. ARGV: id of the answer, name of the worker, the answer.
-- Gone a minute after the last one: who asked has read it by then, or has left.
begin_writing()
redis.call('HSET', ANSWERS, ARGV[1] .. ' ' .. ARGV[2], ARGV[3])
redis.call('PEXPIRE', ANSWERS, 60000)
return 1
