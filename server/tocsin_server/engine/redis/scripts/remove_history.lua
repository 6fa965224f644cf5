-- Drop what a log keeps. Its top stays.
--   KEYS  log
redis.call('DEL', KEYS[1])
