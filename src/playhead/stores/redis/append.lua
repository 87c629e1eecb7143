-- The twin of log.decide_append, and its commit: fence, append and wake-up in one round trip.
-- KEYS  state, log
-- ARGV  epoch, first, last, data bytes, most data bytes of a stream, entry, channel, 1 = the wake-up carries the entry
-- Returns the state's version, or {what is wrong, tail}. Numbers are compared as numbers, and kept as the text they are.
local call = redis.call
local state = call('HMGET', KEYS[1], 'epoch', 'live', 'tail', 'size', 'v')
local epoch, last = ARGV[1], ARGV[3]
if state[1] ~= epoch then return { state[1] and 'fenced' or 'unknown', 0 } end
local tail = tonumber(state[3])
if state[2] ~= '1' then return { 'closed', tail } end
if ARGV[2] - tail ~= 1 or last - tail < 1 then
    if last - tail >= 1 then return { 'gap', tail } end
    call('HSET', KEYS[1], 'tail', state[3]) -- a write, so that WAIT waits for what is being repeated
    return { 'repeat', tail }
end
local size = state[4] + ARGV[4]
if size - ARGV[5] > 0 then return { 'large', tail } end
call('XADD', KEYS[2], last .. '-0', 'p', epoch, 'b', ARGV[6])
call('HSET', KEYS[1], 'tail', last, 'size', size)
call('PUBLISH', ARGV[7], ARGV[8] == '1' and epoch .. ' ' .. last .. ' ' .. ARGV[6] or '')
return state[5]
