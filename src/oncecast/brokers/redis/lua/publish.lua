-- KEYS: h. ARGV: prefix, life, this node's pub/sub channel or '', token, seconds that keys are known;
-- then for each draft: channel, kind, event, key, messages to keep, data.
-- Answer: the number of each draft's message. The token is published after all messages. An error may come behind
-- messages that were stored: they are published again with the same keys.
local h, prefix = KEYS[1], ARGV[1]
local at = redis.call('HMGET', h, 'life', 'seq', 'time')
if at[1] ~= ARGV[2] then return redis.error_reply('LIFE the log has another life: open it again') end
local now = redis.call('TIME')
local ms = math.max(now[1] * 1000 + math.floor(now[2] / 1000), tonumber(at[3]))
local time = string.format('%.0f', ms)
local seq, answer = tonumber(at[2]), {}
for i = 6, #ARGV, 6 do
  local channel, kind, event, key = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3]
  local keep, data = tonumber(ARGV[i+4]), ARGV[i+5]
  local known = key ~= '' and prefix .. ':k:' .. channel .. ' ' .. key
  local seen = known and redis.call('GET', known)
  if seen then
    answer[#answer+1] = seen
  else
    seq = seq + 1
    local number, stream = string.format('%.0f', seq), prefix .. ':s:' .. channel
    local added = redis.pcall('XADD', stream, number .. '-0', 'd', data, 'k', kind, 'e', event, 't', time)
    if type(added) == 'table' and added.err then -- what is before it stands, so its numbers are given
      if i > 6 then redis.call('HSET', h, 'seq', string.format('%.0f', seq - 1), 'time', time) end
      return redis.error_reply(added.err)
    end
    local before = redis.call('ZSCORE', prefix .. ':c', channel)
    redis.call('ZADD', prefix .. ':c', number, channel)
    if known then redis.call('SET', known, number, 'EX', ARGV[5]) end
    local over = redis.call('XLEN', stream) - keep
    if over > keep / 8 + 16 then
      while over > 0 do
        local old = redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(over, 16))
        local last = old[#old]
        redis.call('HSET', prefix .. ':m', channel, string.match(last[1], '%d+') .. ' ' .. last[2][8])
        redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - #old)
        over = over - #old
      end
    end
    local head = {number, before and string.format('%.0f', before) or '0', time, kind, #event}
    redis.call('PUBLISH', prefix .. ':p:' .. channel, table.concat(head, ' ') .. '\n' .. event .. data)
    answer[#answer+1] = number
  end
end
redis.call('HSET', h, 'seq', string.format('%.0f', seq), 'time', time)
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], string.format('%.0f', seq) .. ' ' .. ARGV[4]) end
return answer
