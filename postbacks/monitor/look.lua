-- look: what waits in one page of accounts, by group and by whether the lane fails, and what is claimed. Reads only.
--
-- KEYS FAILING, ROUTES, CLAIMERS, BACKLOG, LANE, LANE_STATE, RECORD, CLAIMS
-- ARGV[2] cursor of the page, 0 first   ARGV[3] accounts a page, about   ARGV[4] ms from a failure to its resend
-- ARGV[5] claims of a loop up to which they are counted one by one; of more a sample is taken
-- ARGV[6] ms for which every attempt has failed of what is down   ARGV[7] lanes looked at for that at most
-- ARGV[8..] the groups
-- Returns {now, next cursor, rows, accounts, claims, still, down}: rows {group, failing 0/1, waiting, oldest_ms or 0, account,
--   longest} (oldest_ms: since when the longest waiting one could be sent; the account whose lane has most waiting, and
--   how many), accounts {name, open postbacks, …}, claims {token, lease's
--   end, claimed, of them with a POST that may be open}; claims come with the first page alone; still: how many wait for accounts for which nothing can
--   be sent (`queue/routes.py`), which are in no row; down: {account, since when}, the longest first, with the first page alone.
local cursor, page, resend_ms, count_max = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local down_ms, failing_max = tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST = 8

local rows, found, still = {}, {}, 0
for i = FIRST, #ARGV do
  for failing = 0, 1 do
    local row = { ARGV[i], failing, 0, 0, '', 0 }
    rows[#rows + 1] = row
    found[ARGV[i] .. failing] = row
  end
end

-- since when a postback could be sent: a resend since its countdown ended, which its last attempt dates
local function waiting_since(id)
  local r = redis.call('HMGET', RECORD .. id, 'created_ms', 'failures', 'sent_ms', 'ready_ms')
  local since = math.max(tonumber(r[1] or 0), tonumber(r[4] or 0))
  if tonumber(r[2] or 0) > 0 and r[3] then since = math.max(since, math.min(now, tonumber(r[3]) + resend_ms)) end
  return since
end

-- whether an account has a row that says that nothing can be sent for it
local function stands_still(account)
  local state = string.match(redis.call('HGET', ROUTES, account) or '', '^%d+\n(%a+)\n')
  return state and state ~= 'on'
end

local scanned = redis.call('HSCAN', BACKLOG, cursor, 'COUNT', page)
for i = 1, #scanned[2], 2 do
  for at = FIRST, #ARGV do
    local lane = scanned[2][i] .. '/' .. ARGV[at]
    local waiting = redis.call('LLEN', LANE .. lane)
    if waiting > 0 and stands_still(scanned[2][i]) then
      still = still + waiting
    elseif waiting > 0 then
      local failing = redis.call('HGET', LANE_STATE .. lane, 'failing') == '1' and 1 or 0
      local row = found[ARGV[at] .. failing]
      row[3] = row[3] + waiting
      if waiting > row[6] then row[5], row[6] = scanned[2][i], waiting end
      local since = waiting_since(redis.call('LINDEX', LANE .. lane, 0))
      if since > 0 and (row[4] == 0 or since < row[4]) then row[4] = since end
    end
  end
end

local claims, down = {}, {}
if cursor == '0' then
  local known = {}
  local failing = redis.call('ZRANGE', FAILING, '-inf', now - down_ms, 'BYSCORE', 'LIMIT', 0, failing_max, 'WITHSCORES')
  for i = 1, #failing, 2 do
    local account = account_of(failing[i])
    if not known[account] and redis.call('HGET', LANE_STATE .. failing[i], 'failing') == '1'
        and not stands_still(account) then
      known[account] = true
      down[#down + 1] = { account, failing[i + 1] }
    end
  end
  local leases = redis.call('ZRANGE', CLAIMERS, 0, 999, 'WITHSCORES')
  for i = 1, #leases, 2 do
    local key = CLAIMS .. leases[i]
    local size, values, open = redis.call('HLEN', key), nil, 0
    if size <= count_max then
      values = redis.call('HVALS', key)
      for _, value in ipairs(values) do if value == '1' then open = open + 1 end end
    else
      values = redis.call('HRANDFIELD', key, count_max, 'WITHVALUES')
      for at = 2, #values, 2 do if values[at] == '1' then open = open + 1 end end
      open = math.floor(open * size / count_max + 0.5)
    end
    claims[#claims + 1] = { leases[i], leases[i + 1], size, open }
  end
end
return { now, scanned[1], rows, scanned[2], claims, still, down }
