-- Watch: say that a program watches outcomes; workers publish them until this expires. ARGV: how long it counts (ms).
begin_writing()
redis.call('SET', WATCH, '1', 'PX', ARGV[1])
return 1
