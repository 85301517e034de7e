-- The beginning of every script. KEYS are the queue's keys, in the order of the table in keys.py; scripts that only
-- move jobs get the first eleven.
local JOBS, LEASED, DELAYED, HELD, DEAD, BODY, RECORD, LEASE, PAUSE, TOTALS, HISTORY,
  WORKERS, HEARTBEATS, ORDERS, MINUTES, WATCH, LATEST, UNDO, ANSWERS, LOSSES = unpack(KEYS)
local KINDS = {'list', 'zset', 'zset', 'zset', 'zset', 'hash', 'hash', 'hash', 'string', 'hash', 'stream',
  'zset', 'hash', 'hash', 'hash', 'string', 'stream', 'hash', 'hash', 'hash'}

-- An element of the list that is no job: it wakes the workers that wait for one, see wake.lua.
local WAKE = '{"wake":"trio_worker"}'

-- Redis does not roll back a script, so a key of a wrong type must be found before the first write.
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)
  found = found.ok or found
  if found ~= 'none' and found ~= KINDS[i] then
    return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. KINDS[i])
  end
end

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local NOW = milliseconds()

-- Scores are passed as text: Lua would write a time as 1.7e+12.
local function whole(number)
  return string.format('%.0f', number)
end

-- A lease entry is 'token|deliveries|state'. States: '' leased; 'started': the mail may have been sent, and its type is
-- held when uncertain; 'settled'; or the reason why a claim made the job dead or held.
local function read_lease(id)
  local entry = redis.call('HGET', LEASE, id)
  if not entry then
    return nil, 0, ''
  end
  local token, deliveries, state = string.match(entry, '^(.-)|(%d+)|(.*)$')
  return token, tonumber(deliveries or 0), state or ''
end

local function write_lease(id, token, deliveries, state)
  redis.call('HSET', LEASE, id, token .. '|' .. deliveries .. '|' .. state)
end

-- Every script that writes calls this before its first write. Redis does not roll back, so it must be known by then that
-- no command will be refused. COMMANDS are those of the script; Redis 6.2 cannot be asked, see trial.lua.
-- When Redis is out of memory, a script may write only if its first write can free memory: this one can.
local function begin_writing()
  if redis.acl_check_cmd then
    for _, command in ipairs(COMMANDS) do
      if not redis.acl_check_cmd(command, JOBS) then
        error({err = "NOPERM no permissions to run the '" .. string.lower(command) .. "' command"})
      end
    end
  end
  redis.call('ZREM', LEASED, '')
end

-- Workers may have leases of different lengths. Return the longest that this queue has had; the first worker with a longer
-- one notes it before it gives a lease.
local function note_lease(lease_ms, noted)
  local longest_ms = tonumber(noted or '0')
  if lease_ms > longest_ms then
    redis.call('HSET', TOTALS, 'lease_ms', whole(lease_ms))
    return lease_ms
  end
  return longest_ms
end
