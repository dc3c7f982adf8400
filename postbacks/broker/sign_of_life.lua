-- sign_of_life: note that a process lives, or has ended in order, on the broker's clock. A full broker takes it as well.
--
-- KEYS[1] zset: a process -> ms of its latest sign, negative where it has ended
-- ARGV[1] the process   ARGV[2] 1 it lives, -1 it has ended   ARGV[3] ms after which one that is silent is forgotten
-- Returns nothing.
local process, sign, kept_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now * sign, process)
redis.call('ZREMRANGEBYSCORE', KEYS[1], kept_ms - now, now - kept_ms)
