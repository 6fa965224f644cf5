-- Read the oldest events of a part that a subscriber has not acknowledged.
--   KEYS     those of the event log, the parts
--   ARGV     incarnation, part, subscriber, limit
--   returns  {entry, {field, event}}, …, or a false value without the claim
local incarnation, part, subscriber, limit = unpack(ARGV)
local field = part .. ':' .. subscriber
if redis.call('HGET', claims, field) ~= incarnation then return false end
redis.call('HDEL', subscribers, '')  -- lets a full Redis run the next command
note_reading(subscriber, now_ms())
return redis.call('XRANGE', part_key(part), '(' .. (redis.call('HGET', positions, field) or '0-0'), '+', 'COUNT', limit)
