-- Forget an intent whose session could not be opened, while its lease is still there; or change nothing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the index   KEYS[4] the due queue
--   KEYS[5] the idempotency key, if there is one; all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] the revision of the lease, 4 bytes
-- Returns 1 when forgotten, 0 when there is no such intent.
assert((#KEYS == 4 or #KEYS == 5) and #ARGV == 2, 'abandon.lua takes 4 or 5 keys and 2 arguments')
local record, ledger, index, due, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id = ARGV[1]

local old = redis.call('GET', record)
if not old or string.byte(old, 2) ~= 0 or string.sub(old, 3, 6) ~= ARGV[2] then
  return 0
end

redis.call('DEL', record)
redis.call('HDEL', ledger, id)
redis.call('ZREM', index, id)
redis.call('ZREM', due, id)
if key then
  local known = redis.call('GET', key)
  if known and string.sub(known, 1, 16) == id then
    redis.call('DEL', key)
  end
end
return 1
