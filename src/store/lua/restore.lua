-- Write the record of an upload that was lost together with what counts it, or change nothing but its owner and its
-- idempotency key, where these are missing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the index   KEYS[4] the due queue
--   KEYS[5] the owners   KEYS[6] the idempotency key, if it is remembered; all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes      ARGV[2] the record                   ARGV[3] life of the record, ms
--   ARGV[4] bytes to reserve          ARGV[5] end of the reservation, ms   ARGV[6] life of the ledger, ms
--   ARGV[7] created at, ms            ARGV[8] life of the index, ms        ARGV[9] due at, ms
--   ARGV[10] the principal, 15 bytes  ARGV[11] its owner, or empty where that is not known
--   with KEYS[6]: ARGV[12] what it holds, as in admit.lua              ARGV[13] life of the idempotency key, ms
-- Returns {0} when written, {1, record} when there is one.
assert((#KEYS == 5 and #ARGV == 11) or (#KEYS == 6 and #ARGV == 13), 'restore.lua takes 5 keys and 11 arguments, or 6 and 13')
local record, ledger, index, due, owners, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id = ARGV[1]

-- Without an entry there, administrators would not see that the principal has uploads.
local owner = redis.call('HGET', owners, ARGV[10])
if not owner or owner == '' then
  redis.call('HSET', owners, ARGV[10], ARGV[11])
end
-- A client may have used it again since, for an upload that is there.
if key then
  redis.call('SET', key, ARGV[12], 'PX', ARGV[13], 'NX')
end
local own = redis.call('GET', record)
if own then
  return { 1, own }
end
redis.call('SET', record, ARGV[2], 'PX', ARGV[3])
redis.call('HSET', ledger, id, struct.pack('>I6I6', tonumber(ARGV[4]), tonumber(ARGV[5])))
redis.call('PEXPIRE', ledger, ARGV[6])
redis.call('ZADD', index, ARGV[7], id)
redis.call('PEXPIRE', index, ARGV[8])
redis.call('ZADD', due, ARGV[9], id)
return { 0 }
