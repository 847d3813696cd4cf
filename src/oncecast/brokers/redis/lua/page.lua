-- KEYS: h. ARGV: prefix, life, most messages, most bytes, then for each channel: its name, the number to read after.
-- Answer: seq, then for each channel a table: mark, 1 if it was cut, id, fields, id, fields ...
-- A page of another life would lead past a hole that the node does not know yet.
-- A channel's share of the bytes is bounded too, so that 64 channels do not hold the server up.
local prefix, limit, bytes = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local at = redis.call('HMGET', KEYS[1], 'life', 'seq')
if at[1] ~= ARGV[2] then return redis.error_reply('LIFE the log has another life: open it again') end
local answer = {at[2]}
for i = 5, #ARGV, 2 do
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
