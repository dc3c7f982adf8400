-- turn_off: turns the feed off, until somebody starts a recorder.
--
-- KEYS HISTORY
-- ARGV[2] why
-- Returns 1, or 0 where it was off.
-- Atomic: nobody sees the end of the feed without its reason.
redis.call('HDEL', HISTORY, 'silent')
return turn_feed_off(ARGV[2])
