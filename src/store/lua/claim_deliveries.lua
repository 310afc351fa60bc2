-- Take deliveries that are due from the outboxes of several endpoints, for a while, as claim.lua does from a queue.
--   KEYS[2n-1] an outbox   KEYS[2n] the failures of the same endpoint; all in one {pNN}
--   ARGV[1] now, ms   ARGV[2] end of the lease, ms   ARGV[2+n] how many at the most from the nth outbox
-- Returns for each outbox a list of uploads, 16 bytes each, and what is known of their failures or an empty text, in turns.
assert(#KEYS >= 2 and #KEYS % 2 == 0 and #ARGV == 2 + #KEYS / 2, 'claim_deliveries.lua takes pairs of keys and a limit for each')
local claimed = {}
for n = 1, #KEYS / 2 do
  local outbox, failures = KEYS[2 * n - 1], KEYS[2 * n]
  local due = redis.call('ZRANGEBYSCORE', outbox, '-inf', ARGV[1], 'LIMIT', 0, ARGV[2 + n])
  local found = {}
  for _, id in ipairs(due) do
    redis.call('ZADD', outbox, 'XX', ARGV[2], id)
    found[#found + 1] = id
    found[#found + 1] = redis.call('HGET', failures, id) or ''
  end
  claimed[n] = found
end
return claimed
