-- Count connections and users as of one moment.
--   KEYS  presence, users
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2])}
