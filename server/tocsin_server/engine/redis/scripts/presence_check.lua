-- Check whether some clients have entries in a channel's presence.
--   KEYS     presence, users
--   ARGV     client, user, client, user, …
--   returns  1 if all of them and their users are there, else 0
for i = 1, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 or redis.call('HEXISTS', KEYS[2], ARGV[i + 1]) == 0 then
    return 0
  end
end
return 1
