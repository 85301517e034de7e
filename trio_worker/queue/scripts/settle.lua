-- Settle: apply verdicts to jobs in flight. ARGV for each: id, and 'token|what|delay (ms)|doubt|record' (doubt is 1 if
-- it is not known whether the mail was delivered; an empty record keeps the old one). That is one text, because each
-- argument costs time. The record of a mail that is done is its receipt, or empty: 'most receipts, time to keep them (ms)
-- and the receipt', with a space between them.
-- Returns for each: 'settled', 'repeated' (this settlement was applied before), 'fenced' (another worker holds the
-- job), 'gone' (the job is done, or has never been claimed). The token fences, not the end of the lease: a late
-- settlement still counts if no other worker has claimed the job.
local answers, uncertain, counts, keep_ms = {}, 0, {}, nil

-- Old receipts are trimmed by their number and by their age, by turns: one command can do only one of it.
local turn = NOW
local function keep_receipt(text)
  local most, kept_ms, receipt = string.match(text, '^(%d+) (%d+) (.*)$')
  keep_ms, turn = kept_ms, turn + 1
  if turn % 2 == 0 then
    redis.call('XADD', HISTORY, 'MAXLEN', '~', most, '*', 'receipt', receipt)
  else
    redis.call('XADD', HISTORY, 'MINID', '~', whole(NOW - tonumber(kept_ms)), '*', 'receipt', receipt)
  end
end

begin_writing()
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local token, what, delay_ms, doubt, record = string.match(ARGV[i + 1], '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  local owner, _, state = read_lease(id)
  local answer = 'settled'
  if not owner then
    answer = 'gone'
  elseif owner ~= token then
    answer = 'fenced'
  elseif state == 'settled' then
    answer = 'repeated'
  else
    redis.call('ZREM', LEASED, id)
    counts[what] = (counts[what] or 0) + 1
    uncertain = uncertain + tonumber(doubt)
    if what == 'done' then
      redis.call('HDEL', BODY, id)
      redis.call('HDEL', RECORD, id)
      redis.call('HDEL', LEASE, id)
      if record ~= '' then
        keep_receipt(record)
      end
    else
      if record ~= '' then
        redis.call('HSET', RECORD, id, record)
      end
      write_lease(id, token, 0, 'settled')
      if what == 'delay' or what == 'release' then
        redis.call('ZADD', DELAYED, whole(NOW + tonumber(delay_ms)), id)
      elseif what == 'hold' then
        redis.call('ZADD', HELD, whole(NOW), id)
      else
        redis.call('ZADD', DEAD, whole(NOW), id)
      end
    end
  end
  answers[#answers + 1] = answer
end
for what, count in pairs(counts) do
  redis.call('HINCRBY', TOTALS, what, count)
end
if uncertain > 0 then
  redis.call('HINCRBY', TOTALS, 'uncertain', uncertain)
end
if keep_ms then
  redis.call('PEXPIRE', HISTORY, keep_ms)
end
return answers
