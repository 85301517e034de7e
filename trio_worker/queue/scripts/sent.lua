-- Sent: search the receipts of sent mails, newest first; writes nothing.
-- ARGV: first entry to read ('+' or '(id'), most entries to read, text that a receipt must have.
-- Returns {id of the last entry that was read ('' if none was), how many were read, {id, receipt ...} that match}.
local entries = redis.call('XREVRANGE', HISTORY, ARGV[1], '-', 'COUNT', ARGV[2])
local matches, last = {}, ''
for _, entry in ipairs(entries) do
  last = entry[1]
  local receipt = entry[2][2]
  if receipt and string.find(receipt, ARGV[3], 1, true) then
    matches[#matches + 1] = entry[1]
    matches[#matches + 1] = receipt
  end
end
return {last, #entries, matches}
