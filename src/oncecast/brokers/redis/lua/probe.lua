-- KEYS: h. ARGV: prefix, life, this node's pub/sub channel, token.
-- Tells the node its place in the log, in the order of the log. Answer: the last number given.
local at = redis.call('HMGET', KEYS[1], 'life', 'seq')
if at[1] ~= ARGV[2] then return redis.error_reply('LIFE the log has another life: open it again') end
redis.call('PUBLISH', ARGV[3], at[2] .. ' ' .. ARGV[4])
return at[2]
