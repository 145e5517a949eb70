import Glibc
import Simulation

// The simulated world from a seed: `simulate --seed N` tells what came of one, `--torture` makes one after the other.

/// Real time, in seconds.
func realTime() -> Int {
    var moment = timespec()
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return moment.tv_sec
}

func say(_ line: String) {
    print(line)
    fflush(nil)
}

func tell(_ failure: Torture.Failure) {
    say("seed \(failure.seed) broke \(failure.violations.count) rules:")
    for words in failure.violations.prefix(6) { say("    \(words)") }
    say("    again: simulate \(failure.reproduction)")
}

func torture(_ order: Order) -> Never {
    let began = realTime()
    var torture = Torture()
    for seed in order.seeds {
        if let failure = torture.run(seed: seed, shrinking: order.shrinking) { tell(failure) }
        if torture.seeds % 100 == 0 { say("\(realTime() - began) s: \(torture.summary)") }
        if order.cuts > 0, torture.total.allPowerCuts >= order.cuts,
            torture.seeds >= min(order.cuts / 100, 1000)
        {
            break
        }
        if order.realSeconds > 0, realTime() - began >= order.realSeconds { break }
    }
    for line in torture.total.lines { say(line) }
    say("\(torture.summary), in \(realTime() - began) s")
    if !torture.failures.isEmpty {
        say("seeds: " + torture.failures.map { String($0.seed) }.joined(separator: " "))
    }
    exit(torture.failures.isEmpty ? 0 : 1)
}

func runSome(_ order: Order) -> Never {
    var total = Statistics()
    var isBroken = false
    for seed in order.seeds {
        let scenario = order.scenario(seed)
        let outcome = World(scenario, isReadable: order.isReadable).run()
        for line in outcome.lines { print(line) }
        total.add(outcome.statistics)
        say("seed \(seed) (\(scenario.family.rawValue)): digest \(String(outcome.digest, radix: 16))")
        guard !outcome.violations.isEmpty else { continue }
        isBroken = true
        var shrinker = Shrinker(runsMax: order.isReadable ? 0 : order.shrinking)
        let (small, _) = shrinker.shrink(scenario, outcome)
        tell(Torture.Failure(seed: seed, violations: outcome.violations, reproduction: small.arguments))
    }
    for line in total.lines { say(line) }
    exit(isBroken ? 1 : 0)
}

guard let order = Order(Array(CommandLine.arguments.dropFirst())), CommandLine.arguments.count > 1 else {
    say(Order.usage)
    exit(2)
}
if order.isTorture { torture(order) } else { runSome(order) }
