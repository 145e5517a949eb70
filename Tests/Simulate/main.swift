import Simulation

var seeds: ClosedRange<UInt64> = 1...1
var isReadable = false
let words = Array(CommandLine.arguments.dropFirst())
for (i, word) in words.enumerated() {
    switch word {
    case "--seed": if let n = UInt64(words[i + 1]) { seeds = n...n }
    case "--seeds":
        let ends = words[i + 1].split(separator: "-").compactMap { UInt64($0) }
        if ends.count == 2 { seeds = ends[0]...ends[1] }
    case "--trace": isReadable = true
    default: break
    }
}
var total = Statistics()
for seed in seeds {
    let outcome = World(Scenario(seed: seed), isReadable: isReadable).run()
    for line in outcome.lines { print(line) }
    print("seed \(seed): digest \(String(outcome.digest, radix: 16)) \(outcome.violations)")
    total.add(outcome.statistics)
}
for line in total.lines { print(line) }
