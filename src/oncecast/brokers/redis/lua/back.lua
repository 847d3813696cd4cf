-- KEYS: h. ARGV: prefix, channel, how many of the newest, where to begin ('+' or a number to stay below).
-- Walks back over at most 1,000 entries. Answer: the number of the oldest entry passed or '', how many were passed.
local stream = ARGV[1] .. ':s:' .. ARGV[2]
local left, below, passed, oldest = math.min(tonumber(ARGV[3]), 1000), ARGV[4], 0, ''
while left > 0 do
  local entries = redis.call('XREVRANGE', stream, below, '-', 'COUNT', math.min(left, 8))
  if #entries == 0 then break end
  oldest = string.match(entries[#entries][1], '%d+')
  passed, left = passed + #entries, left - #entries
  below = string.format('%.0f', oldest - 1)
end
return {oldest, passed}
