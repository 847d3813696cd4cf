-- KEYS: h. ARGV: prefix, most messages, most bytes, then for each channel: its name, the number to read after.
-- Answer: epoch, seq, then for each channel a table: mark, 1 if it was cut, id, fields, id, fields ...
-- A channel's share of the bytes is bounded too, so that 64 channels do not hold the server up.
local prefix, limit, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local at = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local answer = {at[1], at[2]}
for i = 4, #ARGV, 2 do
  local stream, after = prefix .. ':s:' .. ARGV[i], ARGV[i+1]
  local found = {redis.call('HGET', prefix .. ':m', ARGV[i]) or '0 0', 0}
  local count, size = 0, 0
  local from = string.format('%.0f', after + 1)
  while count < limit and size <= bytes do
    local want = math.min(limit - count, 8)
    local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', want)
    for _, entry in ipairs(entries) do
      count, size = count + 1, size + #entry[2][2]
      found[#found+1] = entry
      from = string.format('%.0f', string.match(entry[1], '%d+') + 1)
    end
    if #entries < want then break end
  end
  if (count >= limit or size > bytes) and #redis.call('XRANGE', stream, from, '+', 'COUNT', 1) > 0 then found[2] = 1 end
  answer[#answer+1] = found
end
return answer
