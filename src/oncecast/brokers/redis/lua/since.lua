-- KEYS: h. ARGV: prefix, channel, a time (Unix milliseconds).
-- Answer: the number of the channel's first message that is not older, or ''; by bisection over the numbers.
local stream, time = ARGV[1] .. ':s:' .. ARGV[2], tonumber(ARGV[3])
local first, last = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1], redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if not first or tonumber(last[2][8]) < time then return '' end
local low, high = tonumber(string.match(first[1], '%d+')) - 1, tonumber(string.match(last[1], '%d+'))
while high - low > 1 do
  local middle = math.floor((low + high) / 2)
  local entry = redis.call('XRANGE', stream, string.format('%.0f', middle), '+', 'COUNT', 1)[1]
  if tonumber(entry[2][8]) >= time then high = middle else low = tonumber(string.match(entry[1], '%d+')) end
end
return string.match(redis.call('XRANGE', stream, string.format('%.0f', high), '+', 'COUNT', 1)[1][1], '%d+')
