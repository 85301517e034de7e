-- Tell: put outcomes where those who watch read them. ARGV: how many are kept, then outcomes as JSON.
-- Writes nothing once nobody watches. Returns how many were told.
if redis.call('EXISTS', WATCH) == 0 then
  return 0
end
begin_writing()
for i = 2, #ARGV do
  redis.call('XADD', LATEST, 'MAXLEN', '~', ARGV[1], '*', 'outcome', ARGV[i])
end
-- Gone a while after the last watcher, and not before one who was cut off is back.
redis.call('PEXPIRE', LATEST, 600000)
return #ARGV - 1
