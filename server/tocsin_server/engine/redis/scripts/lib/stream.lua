-- The bytes of an entry of the publish stream, with 16 for each name and value, so that empty ones count too.
local function size_of(fields)
  local size = 0
  for _, text in ipairs(fields) do
    size = size + #text + 16
  end
  return size
end
