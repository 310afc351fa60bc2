-- Attach a session to an intent: the intent becomes a tracked upload, while its lease and its reservation are still
-- there; or change nothing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the due queue      all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] the revision of the lease, 4 bytes   ARGV[3] the record
--   ARGV[4] end of the reservation, ms                                          ARGV[5] due at, ms
-- Returns {0} when attached, {1, record} when the lease is lost, {2} when there is no record.
assert(#KEYS == 3 and #ARGV == 5, 'attach.lua takes 3 keys and 5 arguments')
local record, ledger, due = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]

local old = redis.call('GET', record)
if not old then
  return { 2 }
end
-- A reservation that is over and still there was needed by nobody, so it can be prolonged; one that is gone may have
-- made room for another upload.
local reservation = redis.call('HGET', ledger, id)
if string.byte(old, 2) ~= 0 or string.sub(old, 3, 6) ~= ARGV[2] or not reservation then
  return { 1, old }
end

redis.call('SET', record, ARGV[3], 'KEEPTTL')
redis.call('HSET', ledger, id, string.sub(reservation, 1, 6) .. struct.pack('>I6', tonumber(ARGV[4])))
redis.call('ZADD', due, ARGV[5], id)
return { 0 }
