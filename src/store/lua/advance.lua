-- Move an upload to its next state, with everything that follows from it; or change nothing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the due queue   KEYS[4…] the outboxes of those who are to be told
--   all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] the revision that the record must be at, 4 bytes   ARGV[3] the record
--   ARGV[4] what becomes of the reservation: 'keep', 'release', or 'settle': bytes count in its place
--   ARGV[5] bytes to settle        ARGV[6] the UTC day
--   ARGV[7] life of the record from now, ms, or empty to keep the one it has
--   ARGV[8] due at, ms, or empty for never again
--   ARGV[9] now, ms               ARGV[10] life of an outbox, ms
-- Returns {0} when moved, {1, record} when the record has changed or is final, {2} when there is no record.
assert(#KEYS >= 3 and #ARGV == 10, 'advance.lua takes 3 keys or more, and 10 arguments')
assert(ARGV[4] == 'keep' or ARGV[4] == 'release' or ARGV[4] == 'settle', 'advance.lua: unknown ending')
local record, ledger, due = KEYS[1], KEYS[2], KEYS[3]
local id, today = ARGV[1], tonumber(ARGV[6])

local old = redis.call('GET', record)
if not old then
  return { 2 }
end
-- What is too short to have a state is told, not written over.
if (string.byte(old, 2) or 255) >= 3 or string.sub(old, 3, 6) ~= ARGV[2] then
  return { 1, old }
end

if ARGV[7] == '' then
  redis.call('SET', record, ARGV[3], 'KEEPTTL')
else
  redis.call('SET', record, ARGV[3], 'PX', ARGV[7])
end
if ARGV[4] ~= 'keep' then
  redis.call('HDEL', ledger, id)
end
-- Bytes that are stored count, also when the reservation for them has ended: a final state is entered once, so this
-- happens once.
if ARGV[4] == 'settle' then
  local day = tonumber(redis.call('HGET', ledger, 'd') or 0)
  local sum = 0
  if day >= today then
    sum = tonumber(redis.call('HGET', ledger, 's') or 0)
  end
  redis.call('HSET', ledger, 'd', string.format('%.0f', math.max(day, today)),
    's', string.format('%.0f', sum + tonumber(ARGV[5])))
  -- The ledger may be new, or near its end; it outlives the day.
  if redis.call('PTTL', ledger) < 172800000 then
    redis.call('PEXPIRE', ledger, 172800000)
  end
end
if ARGV[8] == '' then
  redis.call('ZREM', due, id)
else
  redis.call('ZADD', due, ARGV[8], id)
end
for i = 4, #KEYS do
  redis.call('ZADD', KEYS[i], ARGV[9], id)
  redis.call('PEXPIRE', KEYS[i], ARGV[10])
end
return { 0 }
