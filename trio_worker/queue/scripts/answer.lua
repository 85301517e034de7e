-- Answer: store a worker's answer to an order for its sender. ARGV: id of the answer, name of the worker, the answer.
-- Expires a minute after the last answer: the sender has read it by then, or has stopped waiting.
begin_writing()
redis.call('HSET', ANSWERS, ARGV[1] .. ' ' .. ARGV[2], ARGV[3])
redis.call('PEXPIRE', ANSWERS, 60000)
return 1
