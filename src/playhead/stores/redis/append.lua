-- The twin of log.decide_append, and its commit: fence, append and wake-up in one round trip.
-- KEYS  state, log
-- ARGV  epoch, first, last, data bytes, most data bytes of a stream, entry, channel, 1 = the wake-up carries the entry
-- Returns the state's version, or {what is wrong, tail}.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'live', 'tail', 'size', 'v')
if not state[1] then return {'unknown', 0} end
if state[1] ~= ARGV[1] then return {'fenced', 0} end
local tail = tonumber(state[3])
if state[2] ~= '1' then return {'closed', tail} end
local last = tonumber(ARGV[3])
if last <= tail then
    redis.call('HSET', KEYS[1], 'tail', state[3]) -- a write, so that WAIT waits for what is being repeated
    return {'repeat', tail}
end
if tonumber(ARGV[2]) ~= tail + 1 then return {'gap', tail} end
local size = tonumber(state[4]) + tonumber(ARGV[4])
if size > tonumber(ARGV[5]) then return {'large', tail} end
redis.call('XADD', KEYS[2], ARGV[3] .. '-0', 'p', ARGV[1], 'b', ARGV[6])
redis.call('HSET', KEYS[1], 'tail', ARGV[3], 'size', string.format('%.0f', size))
local hint = ''
if ARGV[8] == '1' then hint = 'b' .. ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. ARGV[6] end
redis.call('PUBLISH', ARGV[7], hint)
return state[5]
