-- Hear: read the answers to an order, and delete them. ARGV: for each worker the answer's id, a space, and its name.
-- Returns each answer, '' if there is none yet.
local answers = {}
begin_writing()
for i = 1, #ARGV do
  answers[i] = redis.call('HGET', ANSWERS, ARGV[i]) or ''
  if answers[i] ~= '' then
    redis.call('HDEL', ANSWERS, ARGV[i])
  end
end
return answers
