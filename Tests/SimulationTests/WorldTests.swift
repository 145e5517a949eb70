import Simulation
import Testing

@Suite("The simulated world")
struct WorldTests {
    /// Short enough for every day, and of every family.
    private static func short(_ seed: UInt64) -> Scenario {
        var scenario = Scenario(seed: seed)
        scenario.seconds = min(scenario.seconds, 60)
        scenario.cutsMax = min(scenario.cutsMax, 10)
        return scenario
    }

    @Test("No promise is broken, whatever fails", arguments: UInt64(5001)...UInt64(5020))
    func keepsPromises(seed: UInt64) {
        let outcome = World(Self.short(seed)).run()
        #expect(outcome.violations == [], "simulate \(Self.short(seed).arguments)")
        #expect(outcome.statistics.published > 0 && outcome.statistics.delivered > 0)
    }

    @Test("The same seed does the same, in this process and in any other, whatever it was compiled for")
    func isDeterministic() {
        // Taken from a release build. They change with what the gateway does: see `simulate --seed N --seconds 20`.
        for (seed, digest) in Self.digests {
            var scenario = Scenario(seed: seed)
            scenario.seconds = 20
            #expect(String(World(scenario).run().digest, radix: 16) == digest, "of seed \(seed)")
        }
    }

    private static let digests: [(UInt64, String)] = [
        (2, "56481d51d0618211"),
        (5, "1c5927c1e9cd96b2"),
        (12, "d8388018f848b246"),
        (23, "9967f90da7b71000"),
        (38, "af9644128511ed63"),
    ]

    @Test(
        "A step of the disk that is left out is noticed: the simulator can fail",
        arguments: DiskOmission.allCases)
    func noticesOmissions(omission: DiskOmission) {
        var found: (Scenario, Outcome)?
        for seed in 1...40 as ClosedRange<UInt64> where found == nil {
            let scenario = Self.short(seed)
            let outcome = World(scenario, omission: omission).run()
            if !outcome.violations.isEmpty { found = (scenario, outcome) }
        }
        guard let (scenario, outcome) = found else {
            Issue.record("nothing was noticed in 40 seeds")
            return
        }
        var shrinker = Shrinker(runsMax: 30, omission: omission)
        let (small, smallOutcome) = shrinker.shrink(scenario, outcome)
        #expect(!smallOutcome.violations.isEmpty)
        #expect(small.seconds <= scenario.seconds && small.faults.count <= scenario.faults.count)
    }

    @Test("Arguments say a scenario again")
    func argumentsReproduce() throws {
        var scenario = Scenario(seed: 77)
        scenario.seconds = 5
        scenario.cutsMax = 3
        scenario.faults.removeLast()
        scenario.absent = [1, 4]
        let order = try #require(Order(scenario.arguments.split(separator: " ").map(String.init)))
        #expect(order.scenario(77).arguments == scenario.arguments)
    }

    @Test("A trace can be read, and does not change what happens")
    func traces() {
        var scenario = Self.short(3)
        scenario.seconds = 5
        let told = World(scenario, isReadable: true).run()
        #expect(told.digest == World(scenario).run().digest)
        #expect(told.lines.contains { $0.contains("the gateway starts") })
    }
}
