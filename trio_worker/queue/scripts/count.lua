-- Count: add to one of the queue's totals, also when Redis is full. ARGV: name of the total, number.
begin_writing()
redis.call('HINCRBY', TOTALS, ARGV[1], ARGV[2])
return 1
