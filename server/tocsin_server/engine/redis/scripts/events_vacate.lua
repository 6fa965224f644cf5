-- Vacate channels of an incarnation that is dead.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     PUBLISH or SPUBLISH, pub/sub name; then for each channel: channel, part, event ('': not wanted)
redis.call('HDEL', occupied, '')  -- lets a full Redis run the next commands
for i = 3, #ARGV, 3 do
  vacate(KEYS[#KEYS - 1], ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
redis.call(ARGV[1], ARGV[2], '')
