-- Hear: read what came of an order, and delete what was read. ARGV: ids of answers with names of workers, as written.
-- Returns each answer, '' where there is none yet.
local answers = {}
begin_writing()
for i = 1, #ARGV do
  answers[i] = redis.call('HGET', ANSWERS, ARGV[i]) or ''
  if answers[i] ~= '' then
    redis.call('HDEL', ANSWERS, ARGV[i])
  end
end
return answers
