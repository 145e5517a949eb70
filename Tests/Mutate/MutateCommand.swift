import Foundation
import Synchronization

/// `mutate`: breaks each rule in turn in a copy of the sources, and has the simulator find it.
@main
struct MutateCommand {
    var root = FileManager.default.currentDirectoryPath
    var only: [String] = []
    var seeds: ClosedRange<UInt64> = 1...5000
    var seconds = 120.0
    var jobs = 2

    static let usage = """
        usage: mutate [--root DIR] [--only NAME,…] [--seeds A-B] [--seconds N] [--jobs N]
          --root DIR     the repository; the current directory when not given
          --only NAME,…  these mutants and no others; A9 stands for A9-suback and the like too
          --seeds A-B    where they are looked for; 1-5000 when not given
          --seconds N    how long each is looked for; 120 when not given
          --jobs N       how many at once; 2 when not given

        """

    static func main() {
        do {
            let command = try MutateCommand(Array(CommandLine.arguments.dropFirst()))
            exit(try command.run() ? 0 : 1)
        } catch {
            FileHandle.standardError.write(Data("mutate: \(error)\n\(usage)".utf8))
            exit(64)
        }
    }

    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            guard let value = rest.popFirst() else { throw Mistake("\(name) needs a value") }
            switch name {
            case "--root": root = value
            case "--only": only = value.split(separator: ",").map(String.init)
            case "--seeds":
                let ends = value.split(separator: "-").compactMap { UInt64($0) }
                guard ends.count == 2, ends[0] <= ends[1] else { throw Mistake("--seeds is A-B") }
                seeds = ends[0]...ends[1]
            case "--seconds":
                guard let number = Double(value), number > 0 else { throw Mistake("--seconds is a number") }
                seconds = number
            case "--jobs":
                guard let number = Int(value), number > 0 else { throw Mistake("--jobs is a number") }
                jobs = number
            default: throw Mistake("unknown argument \(name)")
            }
        }
    }

    /// - Returns: whether every mutant was caught, and what is no mutant was not.
    private func run() throws -> Bool {
        let root = URL(fileURLWithPath: root)
        let workshop = Workshop(root: root, place: root.appendingPathComponent(".build/mutants"))
        try workshop.prepare(Mutant.all)
        try workshop.build(jobs: jobs)
        let hunt = Hunt(simulator: workshop.simulator, seeds: seeds, budget: seconds)
        let wanted = Mutant.all.indices.filter { index in
            let name = Mutant.all[index].name
            return only.isEmpty || only.contains { name == $0 || name.hasPrefix("\($0)-") }
        }
        let missed = Mutex<[String]>([])
        let coming = Mutex(wanted[...])
        let isOver = DispatchGroup()
        for _ in 0..<jobs {
            isOver.enter()
            let worker = Thread {
                while let index = coming.withLock({ $0.popFirst() }) {
                    let mutant = Mutant.all[index]
                    let line =
                        switch hunt.run(index + 1, in: mutant.grounds) {
                        case .caught(let seed, let events, let violation):
                            "caught    \(mutant.name): \(mutant.breaks)\n"
                                + "          seed \(seed), \(events) events: \(violation)"
                        case .survived(let seeds):
                            "SURVIVED  \(mutant.name): \(mutant.breaks)\n          \(seeds) seeds"
                        }
                    if line.hasPrefix("SURVIVED") { missed.withLock { $0.append(mutant.name) } }
                    print(line)
                    fflush(nil)
                }
                isOver.leave()
            }
            worker.start()
        }
        isOver.wait()
        let survivors = missed.withLock { $0 }.sorted()
        print("\(wanted.count - survivors.count) of \(wanted.count) mutants caught")
        if !survivors.isEmpty { print("not caught: \(survivors.joined(separator: ", "))") }
        // The same build without a mutant finds nothing: else everything would be caught.
        let plain = Hunt(simulator: workshop.simulator, seeds: seeds, budget: min(seconds, 30)).run(0)
        guard case .survived(let seeds) = plain else {
            print("without a mutant: \(plain)")
            return false
        }
        print("without a mutant \(seeds) seeds find nothing")
        return survivors.isEmpty
    }
}
