/// A rule of the product that is broken on purpose, in a copy of the sources, to see that the simulator notices.
struct Mutant: Sendable {
    /// One word: it is chosen by it.
    let name: String
    /// What it breaks, in words.
    let breaks: String
    /// Where it is looked for.
    let grounds: Grounds
    let edits: [Edit]

    /// Scenarios that are mostly about one thing, as `Scenario` has them.
    enum Grounds: Sendable {
        case anywhere
        case elision
        case compaction
        case damage

        func contains(_ seed: UInt64) -> Bool {
            switch self {
            case .anywhere: true
            case .elision: seed % 10 == 1
            case .compaction: seed % 10 == 2
            case .damage: seed % 10 == 7
            }
        }
    }

    /// A change of one file.
    struct Edit: Sendable {
        let file: String
        /// Must stand in the file exactly once.
        let text: String
        /// What stands there instead; `MUTANT` is true in the run that is to break the rule, and false in others.
        let instead: String

        init(_ file: String, _ text: String, _ instead: String) {
            self.file = file
            self.text = text
            self.instead = instead
        }
    }

    init(_ name: String, _ breaks: String, in grounds: Grounds = .anywhere, _ edits: Edit...) {
        self.name = name
        self.breaks = breaks
        self.grounds = grounds
        self.edits = edits
    }

    static let all = acknowledging + eliding + syncing + salvaging + defects
}
