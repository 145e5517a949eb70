/// Makes a run that fails shorter and simpler for as long as it fails in the same way.
package struct Shrinker {
    private let runsMax: Int
    private let omission: DiskOmission?
    package private(set) var runs = 0

    /// - Parameter omission: what the disk left out when it failed.
    package init(runsMax: Int = 150, omission: DiskOmission? = nil) {
        self.runsMax = runsMax
        self.omission = omission
    }

    /// - Returns: the simplest scenario found that breaks the same rule, and what came of it.
    package mutating func shrink(_ scenario: Scenario, _ outcome: Outcome) -> (Scenario, Outcome) {
        guard let first = outcome.violations.first else { return (scenario, outcome) }
        let kind = Self.kind(of: first)
        var best = (scenario, outcome)
        var isSimpler = true
        while isSimpler, runs < runsMax {
            isSimpler = false
            for candidate in simpler(than: best.0, best.1) where runs < runsMax {
                runs += 1
                let outcome = World(candidate, omission: omission).run()
                guard let found = outcome.violations.first, Self.kind(of: found) == kind else { continue }
                best = (candidate, outcome)
                isSimpler = true
                break
            }
        }
        return best
    }

    /// The simplest first.
    private func simpler(than scenario: Scenario, _ outcome: Outcome) -> [Scenario] {
        var list: [Scenario] = []
        func add(_ change: (inout Scenario) -> Void) {
            var candidate = scenario
            change(&candidate)
            list.append(candidate)
        }
        let needed = Int(outcome.statistics.microseconds / 1_000_000) + 1
        for seconds in [1, scenario.seconds / 4, scenario.seconds / 2, scenario.seconds * 3 / 4, needed]
        where seconds > 0 && seconds < scenario.seconds {
            add { $0.seconds = seconds }
        }
        let cuts = outcome.statistics.allPowerCuts
        for most in [0, cuts / 2, cuts - 1] where most >= 0 && most < min(scenario.cutsMax, cuts + 1) {
            add { $0.cutsMax = most }
        }
        for kind in scenario.faults { add { $0.faults.removeAll { $0 == kind } } }
        for place in scenario.clients.indices.map({ $0 }) + [scenario.clients.count]
        where !scenario.absent.contains(place) && !scenario.notInvited.contains(place) {
            add { $0.absent.append(place) }
        }
        return list
    }

    /// What is broken, without whose and which it was.
    static func kind(of violation: String) -> String {
        violation.split(separator: " ")
            .filter { word in !word.utf8.contains { $0 >= 48 && $0 < 58 } }
            .suffix(4).joined(separator: " ")
    }
}
