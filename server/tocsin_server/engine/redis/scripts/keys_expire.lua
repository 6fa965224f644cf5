-- Let keys expire, whether they exist or not.
--   KEYS     any keys
--   ARGV     milliseconds from now
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[1])
end
