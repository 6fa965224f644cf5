-- Write a batch of a node: its events, and what it changes in the node's sessions and channels.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     epoch, incarnation, number of the batch, time to live of the incarnation's keys (ms), size of a part,
--            retention (ms), PUBLISH or SPUBLISH, pub/sub name; then any number of
--            e, part, event               append the event
--            s, client, record            the session is as in the record
--            d, client                    the session ended
--            o, channel, part, event      the node occupies a channel; '' for an event that is not wanted
--            v, channel, part, event      the node vacates a channel
--   returns  {written}, {reaped, last batch} or {lost}
local epoch, incarnation, number, ttl_ms, size, retention_ms, publish_command, pubsub_name = unpack(ARGV, 1, 8)
local sessions, channels, dead = unpack(KEYS, #KEYS - 2)

local last_of_dead = redis.call('GET', dead)
if last_of_dead then return {'reaped', last_of_dead} end
local last = tonumber(redis.call('HGET', batches, incarnation))
if redis.call('HGET', meta, 'epoch') ~= epoch or not is_live(redis.call('HGET', nodes, incarnation)) or not last then
  return {'lost'}
end
if tonumber(number) <= last then return {'written'} end
if tonumber(number) ~= last + 1 then return {'lost'} end

redis.call('HDEL', batches, '')  -- lets a full Redis run the next commands: their memory is limited
redis.call('HSET', batches, incarnation, number)
local touched, i = {}, 9
local function append_to(part, body)
  append(part, body)
  touched[part] = true
end
while i <= #ARGV do
  local kind, name, part, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 'e' then
    append_to(name, part)
    i = i + 3
  elseif kind == 's' then
    redis.call('HSET', sessions, name, part)
    i = i + 3
  elseif kind == 'd' then
    redis.call('HDEL', sessions, name)
    i = i + 2
  elseif kind == 'o' then
    if redis.call('SADD', channels, name) == 1 and redis.call('HINCRBY', occupied, name, 1) == 1 and body ~= '' then
      append_to(part, body)
    end
    i = i + 4
  else
    vacate(channels, name, part, body)
    touched[part] = true
    i = i + 4
  end
end
redis.call('PEXPIRE', sessions, ttl_ms)
redis.call('PEXPIRE', channels, ttl_ms)
for part in pairs(touched) do trim(part, size, retention_ms) end
if next(touched) then redis.call(publish_command, pubsub_name, '') end
return {'written'}
