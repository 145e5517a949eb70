/// One run after the other, for as long as it is told; counts power cuts and whatever was broken.
package struct Torture {
    package private(set) var total = Statistics()
    package private(set) var seeds = 0
    package private(set) var failures: [Failure] = []

    package struct Failure: Sendable {
        package var seed: UInt64
        package var violations: [String]
        /// Arguments that break the same rule sooner.
        package var reproduction: String

        package init(seed: UInt64, violations: [String], reproduction: String) {
            self.seed = seed
            self.violations = violations
            self.reproduction = reproduction
        }
    }

    package init() {}

    /// - Returns: what broke, if anything did.
    package mutating func run(seed: UInt64, shrinking: Int) -> Failure? {
        let scenario = Scenario(seed: seed)
        let outcome = World(scenario).run()
        seeds += 1
        total.add(outcome.statistics)
        guard !outcome.violations.isEmpty else { return nil }
        var shrinker = Shrinker(runsMax: shrinking)
        let (small, _) = shrinker.shrink(scenario, outcome)
        let failure = Failure(seed: seed, violations: outcome.violations, reproduction: small.arguments)
        failures.append(failure)
        return failure
    }

    package var summary: String {
        "\(seeds) seeds, \(total.allPowerCuts) power cuts (\(total.cutsOfRecovery) of them during recovery), "
            + "\(failures.count) seeds with violations"
    }
}
