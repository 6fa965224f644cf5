-- The readers of a subscriber: the live incarnations that have parts or have tried to claim one in the last seconds, and
-- have not left. Each should have its share of the parts.
local READER_MS = 5000  -- a reader tries every second, unless it has all parts

-- How many parts each reader has.
local function held_parts(subscriber, parts, now)
  local held, left = {}, {}
  local noted = redis.call('HGETALL', readers)
  for i = 1, #noted, 2 do
    local incarnation, name = string.match(noted[i], '^(%S+) (.*)$')
    if not is_live(redis.call('HGET', nodes, incarnation)) then
      redis.call('HDEL', readers, noted[i])
    elseif name == subscriber and noted[i + 1] == 'left' then
      left[incarnation] = true
    elseif name == subscriber and tonumber(noted[i + 1]) > now - READER_MS then
      held[incarnation] = 0
    end
  end
  for part = 0, parts - 1 do
    local holder = redis.call('HGET', claims, part .. ':' .. subscriber)
    if holder and not left[holder] and (held[holder] or is_live(redis.call('HGET', nodes, holder))) then
      held[holder] = (held[holder] or 0) + 1
    end
  end
  return held
end

-- How many parts more than its share an incarnation has; negative if it has less. The shares of all readers are together
-- all parts, and differ by at most one. Those that have the most parts have the larger ones, so few parts move.
local function surplus_of(incarnation, subscriber, now)
  local parts = #KEYS - FIRST_PART + 1
  local held, names = held_parts(subscriber, parts, now), {}
  for name in pairs(held) do names[#names + 1] = name end
  table.sort(names, function(one, other)
    if held[one] ~= held[other] then return held[one] > held[other] end
    return one < other
  end)
  for i, name in ipairs(names) do
    if name == incarnation then
      return held[name] - math.floor(parts / #names) - (i <= parts % #names and 1 or 0)
    end
  end
  return 0
end
