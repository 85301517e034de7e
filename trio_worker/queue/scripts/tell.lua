-- Tell: put outcomes and exchanges where those who watch read them. ARGV: how many are kept, then kind ('outcome' or
-- 'exchange') and JSON of each.
-- Writes nothing once nobody watches. Returns how many were told.
if redis.call('EXISTS', WATCH) == 0 then
  return 0
end
begin_writing()
for i = 2, #ARGV, 2 do
  redis.call('XADD', LATEST, 'MAXLEN', '~', ARGV[1], '*', ARGV[i], ARGV[i + 1])
end
-- Gone a while after the last watcher, and not before one who was cut off is back.
redis.call('PEXPIRE', LATEST, 600000)
return (#ARGV - 1) / 2
