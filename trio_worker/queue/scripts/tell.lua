-- Tell: add outcomes and trace lines to the live feed. ARGV: most entries to keep, then kind ('outcome' or 'exchange')
-- and JSON of each.
-- Writes nothing if no program watches. Returns how many were added.
if redis.call('EXISTS', WATCH) == 0 then
  return 0
end
begin_writing()
for i = 2, #ARGV, 2 do
  redis.call('XADD', LATEST, 'MAXLEN', '~', ARGV[1], '*', ARGV[i], ARGV[i + 1])
end
-- Expires some time after the last entry: a watcher that lost its connection can go on reading.
redis.call('PEXPIRE', LATEST, 600000)
return (#ARGV - 1) / 2
