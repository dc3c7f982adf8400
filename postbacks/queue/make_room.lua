-- make_room: drops what is dispensable before its time, until about so many bytes are free: the oldest done postbacks that the
-- history has recorded, then the oldest entries of its feed (what they name stands in the ledger, where a resync finds it),
-- then done postbacks that are not recorded, and where all that does not do, dead ones. Dead ones of the account whose dead
-- take the most go first, its stubs before the others, so that nobody's dead give way to those of one that has more; dead
-- opt-outs only when nothing else of the accounts with the most is left. Never one that waits, is sent or is parked.
--
-- KEYS DONE, DEAD, DEAD_BYTES, LEDGER_BYTES, UNROUTED, TOTALS, RECORD
-- ARGV[2] bytes that done ones are to free   ARGV[3] bytes that dead ones are to free, what is freed of done ones included
-- ARGV[4] bytes that the ledger may take all the same   ARGV[5] records at most   ARGV[6] bytes that the feed may take all the same
-- Returns {done ones dropped, dead ones dropped, the accounts whose dead ones they were, entries of the feed dropped, records
--   dropped that were not recorded}; as many as asked for means that there may be more.
-- Atomic: a record and its place in every index go together.
local at_most = tonumber(ARGV[5])
local room = tonumber(redis.call('GET', LEDGER_BYTES) or 0) - tonumber(ARGV[4])
local freed, counts, accounts, unrecorded = 0, { [DONE] = 0, [DEAD] = 0 }, {}, 0

local function oldest_done()
  return redis.call('ZRANGE', DONE, 0, 0)[1]
end

local function oldest_recorded()
  local oldest = redis.call('ZRANGE', DONE, 0, 0, 'WITHSCORES')
  return oldest[1] and tonumber(oldest[2]) < unrecorded_since() and oldest[1]
end

local ACCOUNTS_MAX = 20 -- that are looked at for a dead one that is no opt-out
local has_opt_outs_alone = {} -- account -> true
local function next_dead()
  local opt_out
  local by_bytes = redis.call('ZRANGE', DEAD_BYTES, -ACCOUNTS_MAX, -1)
  for at = #by_bytes, 1, -1 do
    local account, id, is_opt_out = by_bytes[at], nil, nil
    if not (opt_out and has_opt_outs_alone[account]) then id, is_opt_out = oldest_dead_of(account, at_most) end
    if id and not is_opt_out then return id end
    has_opt_outs_alone[account] = true
    opt_out = opt_out or id
  end
  local unrouted, is_opt_out = first_of(UNROUTED)
  if unrouted and not is_opt_out then return unrouted end
  -- the dead of version 0.1.0, and those of the accounts that have less
  local oldest = redis.call('ZRANGE', DEAD, 0, 0)[1]
  if oldest and redis.call('HEXISTS', RECORD .. oldest, 'opt_out') == 0 then return oldest end
  return opt_out or oldest
end

local function drop_while(index, bytes, next_one)
  while freed < math.min(bytes, room) and counts[DONE] + counts[DEAD] < at_most do
    local id = next_one()
    if not id then return end
    if index == DEAD then accounts[redis.call('HGET', RECORD .. id, 'account') or ''] = true end
    if unrecorded_since() < math.huge and tonumber(redis.call('ZSCORE', index, id) or 0) >= unrecorded_since() then
      unrecorded = unrecorded + 1
    end
    freed = freed + drop(index, id)
    counts[index] = counts[index] + 1
  end
end

local done_bytes, entries, bytes_of_feed = tonumber(ARGV[2]), 0, 0
drop_while(DONE, done_bytes, oldest_recorded)
if counts[DONE] < at_most then entries, bytes_of_feed = shrink_feed(done_bytes - freed, tonumber(ARGV[6])) end
drop_while(DONE, done_bytes - bytes_of_feed, oldest_done)
drop_while(DEAD, tonumber(ARGV[3]) - bytes_of_feed, next_dead)
if counts[DONE] > 0 then redis.call('HINCRBY', TOTALS, 'early_done', counts[DONE]) end
if counts[DEAD] > 0 then redis.call('HINCRBY', TOTALS, 'early_dead', counts[DEAD]) end
local names = {}
for account in pairs(accounts) do names[#names + 1] = account end
if unrecorded > 0 then redis.call('HINCRBY', TOTALS, 'unrecorded_dropped', unrecorded) end
return { counts[DONE], counts[DEAD], names, entries, unrecorded }
