-- Vacate channels of an incarnation that is dead. Those of another epoch than the present one do not count in `occupied`.
--   KEYS     those of the event log, the parts, those of the incarnation
--   ARGV     incarnation, PUBLISH or SPUBLISH, pub/sub name; then for each channel: channel, part, event ('': not wanted)
--   returns  how many channels the incarnation has vacated
local state, vacated = redis.call('HGET', nodes, ARGV[1]), 0
if not state or epoch_of(state) ~= redis.call('HGET', meta, 'epoch') then return 0 end
redis.call('HDEL', occupied, '')  -- lets a full Redis run the next commands
for i = 4, #ARGV, 3 do
  vacated = vacated + vacate(KEYS[#KEYS - 1], ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
if vacated > 0 then redis.call(ARGV[2], ARGV[3], '') end
return vacated
