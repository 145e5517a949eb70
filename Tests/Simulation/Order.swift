/// What the command was asked for.
package struct Order: Sendable {
    package var seeds: ClosedRange<UInt64> = 1...1
    package var isTorture = false
    package var isReadable = false
    /// Torture ends after so many power cuts, or so many seconds of real time; 0 for neither.
    package var cuts = 0
    package var realSeconds = 0
    /// Runs that may be spent on making a failure simpler.
    package var shrinking = 150
    package var seconds: Int?
    package var cutsMax: Int?
    package var without: [FaultKind] = []
    package var absent: [Int] = []

    package static let usage = """
        simulate --seed N [--minutes M | --seconds S] [--trace]   one run, and what came of it
        simulate --seeds A-B                                       runs in a row
        simulate --torture [--hours H | --cuts N] [--from N]       runs until then, from seed N on
          --without KIND,…    leaves faults out       --absent N,…      leaves peers out
          --cuts-max N        ends the trouble after so many power cuts
          --shrinking N       runs to be spent on making a failure simpler; 0 for none
        """

    /// nil when the words make no sense.
    package init?(_ words: [String]) {
        var rest = words[...]
        while let word = rest.popFirst() {
            switch word {
            case "--trace": isReadable = true
            case "--torture":
                isTorture = true
                seeds = seeds.lowerBound...UInt64(Int64.max)
            default:
                guard let value = rest.popFirst(), take(word, value) else { return nil }
            }
        }
    }

    private mutating func take(_ word: String, _ value: String) -> Bool {
        let number = Int(value)
        switch word {
        case "--seed", "--from":
            guard let seed = UInt64(value), seed <= UInt64(Int64.max) else { return false }
            seeds = seed...(isTorture ? UInt64(Int64.max) : seed)
        case "--seeds":
            let ends = value.split(separator: "-").compactMap { UInt64($0) }
            guard ends.count == 2, ends[0] <= ends[1] else { return false }
            seeds = ends[0]...ends[1]
        case "--minutes":
            guard let number else { return false }
            seconds = number * 60
        case "--seconds": seconds = number
        case "--cuts-max": cutsMax = number
        case "--shrinking":
            guard let number else { return false }
            shrinking = number
        case "--hours":
            guard let hours = Double(value) else { return false }
            realSeconds = Int(hours * 3600)
        case "--cuts":
            guard let number else { return false }
            cuts = number
        case "--without":
            let kinds = value.split(separator: ",").map { FaultKind(rawValue: String($0)) }
            without = kinds.compactMap { $0 }
            return without.count == kinds.count
        case "--absent":
            absent = value.split(separator: ",").compactMap { Int($0) }
        default: return false
        }
        return true
    }

    package func scenario(_ seed: UInt64) -> Scenario {
        var scenario = Scenario(seed: seed)
        if let seconds { scenario.seconds = seconds }
        if let cutsMax { scenario.cutsMax = cutsMax }
        scenario.faults.removeAll { without.contains($0) }
        scenario.absent = absent
        return scenario
    }
}
