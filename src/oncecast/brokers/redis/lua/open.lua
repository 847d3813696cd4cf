-- KEYS: h. ARGV: prefix, name of the epoch if the log begins now, the epoch and the number that the node has seen.
-- Without a name, where there is no log, the error is NOLOG. A server whose log ends before that number has lost
-- messages, though it may be the process that numbered before. Answer: life, epoch, seq, then for each hole its text.
local h, prefix = KEYS[1], ARGV[1]
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local at = redis.call('HMGET', h, 'epoch', 'born', 'life', 'seq')
local epoch, seq = at[1], at[4]
if not epoch then
  if ARGV[2] == '' then return redis.error_reply('NOLOG there is no log') end
  epoch, seq = ARGV[2], '0'
  redis.call('HSET', h, 'epoch', epoch, 'born', string.format('%.0f', ms), 'life', run, 'seq', seq, 'time', '0')
elseif at[3] ~= run or (epoch == ARGV[3] and tonumber(seq) < tonumber(ARGV[4])) then
  local next = math.max(tonumber(seq) + 1, math.floor((ms - at[2]) * 131.072))
  if epoch == ARGV[3] then next = math.max(next, tonumber(ARGV[4]) + 1) end
  local text = string.format('%.0f', next)
  redis.call('RPUSH', prefix .. ':x', seq .. ' ' .. text)
  redis.call('LTRIM', prefix .. ':x', -10000, -1)
  seq = text
  redis.call('HSET', h, 'life', run, 'seq', seq)
end
local answer = redis.call('LRANGE', prefix .. ':x', 0, -1)
table.insert(answer, 1, seq)
table.insert(answer, 1, epoch)
table.insert(answer, 1, redis.call('HGET', h, 'life'))
return answer
