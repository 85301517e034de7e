-- Trial: run commands on a key of its own, which is gone afterwards, and return those that Redis refuses.
-- KEYS: those of the scripts that are tried, which Redis checks before it runs this. ARGV: the commands.
-- Returns a command and what Redis said, for each.
-- Redis does not roll back a script, and a script that is refused in its middle may leave a job in no state. So its
-- commands are tried before it runs for the first time. begin_writing checks them at each run, but Redis 6.2 has no such
-- check, and Redis up to 7.0 does not name what it refuses.
local KEY = '{' .. KEYS[1] .. '}:trial'
local ARGUMENTS = {
  HINCRBY = {'n', '1'}, HSET = {'f', 'v'}, HDEL = {'f', 'n'}, HGET = {'f'}, HMGET = {'f'}, HEXISTS = {'f'},
  LINDEX = {'0'}, LPOP = {}, LPUSH = {'x'}, LREM = {'1', 'x'}, PEXPIRE = {'-1'}, SET = {'v'}, XADD = {'*', 'f', 'v'},
  ZADD = {'0', 'x'}, ZCOUNT = {'0', '0'}, ZRANGE = {'0', '0'}, ZRANGEBYSCORE = {'0', '0'}, ZREM = {'x'},
  ZSCORE = {'x'},
}
-- What removes the key again that a command has made.
local REMOVAL = {HINCRBY = 'HDEL', HSET = 'HDEL', LPUSH = 'LPOP', SET = 'DEL', ZADD = 'ZREM', XADD = 'PEXPIRE'}

local function run(command)
  local answer
  if command == 'TIME' then
    answer = redis.pcall('TIME')
  else
    answer = redis.pcall(command, KEY, unpack(ARGUMENTS[command] or {}))
  end
  return type(answer) == 'table' and answer.err or nil
end

-- When Redis is out of memory, a script may write only if its first write can free memory: this one can.
redis.pcall('ZREM', KEYS[2], '')
local refused = {}
for _, command in ipairs(ARGV) do
  local removal = REMOVAL[command]
  -- Nothing is made that could not be taken away.
  if not removal or not run(removal) then
    local said = run(command)
    if said then
      refused[#refused + 1] = command
      refused[#refused + 1] = said
    elseif removal then
      run(removal)
    end
  end
end
return refused
