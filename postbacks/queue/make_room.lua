-- make_room: drops the oldest postbacks that are done before their time, and where these do not do, dead ones, until about so
-- many bytes are free. Never one that waits, is sent or is parked.
--
-- KEYS[last]  hash  totals of all workers
-- ARGV[2] bytes that done ones are to free   ARGV[3] bytes that dead ones are to free, what is freed of done ones included
-- ARGV[4] bytes that the ledger may take all the same   ARGV[5] records at most
-- Returns {done ones dropped, dead ones dropped, the accounts whose dead ones they were}; as many as asked for means that
--   there may be more.
local at_most = tonumber(ARGV[5])
local room = tonumber(redis.call('GET', LEDGER_BYTES) or 0) - tonumber(ARGV[4])
local freed, counts, accounts = 0, { [DONE] = 0, [DEAD] = 0 }, {}

local function drop_oldest(index, bytes)
  while freed < math.min(bytes, room) and counts[DONE] + counts[DEAD] < at_most do
    local oldest = redis.call('ZRANGE', index, 0, 0)
    if #oldest == 0 then return end
    if index == DEAD then accounts[redis.call('HGET', RECORD .. oldest[1], 'account') or ''] = true end
    freed = freed + drop(index, oldest[1])
    counts[index] = counts[index] + 1
  end
end

drop_oldest(DONE, tonumber(ARGV[2]))
drop_oldest(DEAD, tonumber(ARGV[3]))
if counts[DONE] > 0 then redis.call('HINCRBY', KEYS[#KEYS], 'early_done', counts[DONE]) end
if counts[DEAD] > 0 then redis.call('HINCRBY', KEYS[#KEYS], 'early_dead', counts[DEAD]) end
local names = {}
for account in pairs(accounts) do names[#names + 1] = account end
return { counts[DONE], counts[DEAD], names }
