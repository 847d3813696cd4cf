-- KEYS: h. ARGV: prefix, channel, the greatest number to remove by count, the oldest time to keep (Unix milliseconds).
-- Removes at most 64 entries; answers with 1 where more are due.
local prefix, channel, keep, oldest = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stream = prefix .. ':s:' .. channel
for turn = 1, 4 do
  local over = redis.call('XLEN', stream) - keep
  local old = redis.call('XRANGE', stream, '-', '+', 'COUNT', 16)
  local due = 0
  for i, entry in ipairs(old) do
    if i <= over or tonumber(entry[2][8]) < oldest then due = i else break end
  end
  if due > 0 then
    local last = old[due]
    redis.call('HSET', prefix .. ':m', channel, string.match(last[1], '%d+') .. ' ' .. last[2][8])
    redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - due)
  end
  if due < 16 then return 0 end
end
return 1
