"""A seeded fault run against real processes on one store: ``make chaos``. See docs/chaos.md.

python -m benchmarks.chaos --seed 1 --minutes 3 [--store sqlite] [--report docs/chaos.md]

content     what every stream says, as a function of its id and the offset
server      one serving process: start, read, cancel
processes   instances and Redis: started, killed, frozen, thawed
streams     what may become of a stream, given what was done to its producer
readers     readers who are cut at random bytes, come back elsewhere, and check all that they are given
faults      the dice
report      the figures
"""
