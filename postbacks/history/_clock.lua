-- _clock: what the feed's own scripts begin with, the broker's clock. They name none of the moves' keys, so that a recorder needs
-- no right to those (docs/settings.md).
--
-- ARGV[1], the same for all scripts: ms added to the broker's clock; 0 outside tests.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])

