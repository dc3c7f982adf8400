-- records: fields of many records, or which of many ids have none; a call a page, since a command an id costs the
-- client more than the broker. Reads only, and runs without _shared.lua.
--
-- KEYS RECORD
-- ARGV[1] number of fields; 0 asks which ids have no record   ARGV[2..] the fields, then the ids
-- Returns a row of values an id, in order; or the ids without a record.
local count = tonumber(ARGV[1])
local fields, rows = {}, {}
for i = 2, 1 + count do fields[#fields + 1] = ARGV[i] end
for i = 2 + count, #ARGV do
  if count > 0 then
    rows[#rows + 1] = redis.call('HMGET', RECORD .. ARGV[i], unpack(fields))
  elseif redis.call('EXISTS', RECORD .. ARGV[i]) == 0 then
    rows[#rows + 1] = ARGV[i]
  end
end
return rows
