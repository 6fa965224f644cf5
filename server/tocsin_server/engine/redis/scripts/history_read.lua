-- Read a log and its top as of one moment.
--   KEYS  meta, log
--   ARGV  lifetime of meta (ms), fresh epoch, known offset, known epoch, known stamp, XRANGE or XREVRANGE or '', from, to,
--         count ('': all)
-- Answers {offset, epoch, entries}.
local offset, epoch = open(KEYS[1], KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local range, from, to, count = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if range == '' then
  return {offset, epoch, {}}
elseif count == '' then
  return {offset, epoch, redis.call(range, KEYS[2], from, to)}
end
return {offset, epoch, redis.call(range, KEYS[2], from, to, 'COUNT', count)}
