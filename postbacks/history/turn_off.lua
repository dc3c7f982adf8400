-- turn_off: turns the feed off.
--
-- KEYS
-- ARGV[2] why
-- Returns 1, or 0 where it was off.
-- Atomic: nobody sees the end of the feed without its reason.
return turn_feed_off(ARGV[2])
