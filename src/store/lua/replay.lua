-- Put a parked delivery back among those that wait, its failures forgotten; drop it where its upload is forgotten.
--   KEYS[1] the outbox   KEYS[2] the failures   KEYS[3] what is parked   KEYS[4] the upload's record; all in one {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] now, ms   ARGV[3] life of the outbox, ms
-- Returns 1 when it waits again, 0 when it was not parked or its upload is forgotten.
assert(#KEYS == 4 and #ARGV == 3, 'replay.lua takes 4 keys and 3 arguments')
local outbox, failures, parked, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]

if redis.call('ZREM', parked, id) == 0 then
  return 0
end
redis.call('HDEL', failures, id)
if redis.call('EXISTS', record) == 0 then
  return 0
end
redis.call('ZADD', outbox, ARGV[2], id)
redis.call('PEXPIRE', outbox, ARGV[3])
return 1
