-- Give a publication its place in the log, keep it, and announce it; or only announce it.
--   KEYS  meta, log, answer to the idempotency key if there is one
--   ARGV  PUBLISH or SPUBLISH, name of the announcements, head, body, lifetime of the answer (0: no idempotency key),
--         history size (0: no log), its lifetime, lifetime of meta, fresh epoch, known offset, known epoch,
--         stamp, version, version epoch; lifetimes in ms
-- Answers {offset, epoch}.
local meta, log, first_answer = KEYS[1], KEYS[2], KEYS[3]
local publish, announcements, head, body, answer_lifetime = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local size, lifetime, meta_lifetime, fresh = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local known_offset, known_epoch, stamp, version, version_epoch = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14]

-- A version is outdated if it is not above the last one, and compares with it. A newer one is remembered.
local function is_outdated()
  if version == '0' then return false end
  local last = redis.call('HMGET', meta, 'version', 'version_epoch')
  local is_comparable = version_epoch == '' or version_epoch == (last[2] or '')
  if is_comparable and last[1] and not is_below(last[1], version) then return true end
  redis.call('HSET', meta, 'version', version, 'version_epoch', version_epoch)
  return false
end

local function append()
  local offset, epoch = open(meta, log, fresh, known_offset, known_epoch, '0')
  if not is_outdated() then
    offset = string.format('%.0f', redis.call('HINCRBY', meta, 'offset', 1))
    redis.call('XADD', log, 'MAXLEN', size, offset .. '-' .. stamp, '1', body)
    redis.call('PEXPIRE', log, lifetime)
    redis.call(publish, announcements, head .. offset .. ' ' .. epoch .. '\n' .. body)
  end
  redis.call('PEXPIRE', meta, meta_lifetime)
  return offset, epoch
end

local function remember(offset, epoch)
  if answer_lifetime ~= '0' then
    redis.call('SET', first_answer, offset .. ' ' .. epoch, 'PX', answer_lifetime)
  end
  return {offset, epoch}
end

if answer_lifetime ~= '0' then
  local answer = redis.call('GET', first_answer)
  if answer then
    return {string.match(answer, '^(%d+) (.*)$')}
  end
end
if size ~= '0' then
  return remember(append())
end
local answer = remember('0', '')
redis.call(publish, announcements, head .. body)
return answer
