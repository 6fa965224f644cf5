-- How many parts an incarnation should release, because other readers of the subscriber have fewer.
--   KEYS     those of the event log, the parts
--   ARGV     incarnation, subscriber
--   returns  the number
redis.call('HDEL', readers, '')  -- lets a full Redis run the next commands
return math.max(0, surplus_of(ARGV[1], ARGV[2], now_ms()))
